//! How many connections the limit on open files has room for.

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

use crate::config::limits::ARRIVALS_MIN;
use crate::config::limits::DESCRIPTORS_PER_SESSION;
use crate::config::limits::DESCRIPTORS_RESERVED;
use crate::config::sections::Limits;

/// What may be there at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Sessions, those that are logging in included.
    pub sessions: usize,
    /// Connections that have not said yet what they want; one descriptor each.
    pub arrivals: usize,
}

impl Budget {
    /// How many open files so many take.
    pub fn descriptors(sessions: usize, arrivals: usize) -> usize {
        let sessions = sessions.saturating_mul(DESCRIPTORS_PER_SESSION);
        sessions
            .saturating_add(arrivals)
            .saturating_add(DESCRIPTORS_RESERVED)
    }

    /// Within so many open files, at most so many of each. Sessions come first; what they leave is
    /// for arrivals, which are gone within seconds.
    pub fn within(descriptors: usize, sessions_max: usize, arrivals_max: usize) -> Self {
        let free = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
        let room = free.saturating_sub(ARRIVALS_MIN) / DESCRIPTORS_PER_SESSION;
        let sessions = sessions_max.min(room).max(1);
        let left = free.saturating_sub(sessions * DESCRIPTORS_PER_SESSION);
        let arrivals = left.max(ARRIVALS_MIN).min(arrivals_max);
        Self { sessions, arrivals }
    }
}

/// What of the configured bounds the limit on open files has room for.
pub(super) fn budget(limits: &Limits) -> Budget {
    let (sessions_max, arrivals_max) = (limits.sessions_max, limits.arrivals_max);
    let descriptors = raise_descriptor_limit(Budget::descriptors(sessions_max, arrivals_max));
    let budget = Budget::within(descriptors, sessions_max, arrivals_max);
    if budget.sessions < sessions_max {
        let sessions_max = budget.sessions;
        tracing::info!(sessions_max, "sessions bounded by the limit on open files");
    }
    budget
}

/// Raises the limit on open files to what is wanted, or as far as it goes; how many it allows.
/// Beyond the hard limit it goes with CAP_SYS_RESOURCE.
fn raise_descriptor_limit(wanted: usize) -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return usize::MAX;
    };
    let wanted = wanted as u64;
    let set = |limit: u64| setrlimit(Resource::RLIMIT_NOFILE, limit, limit).map(|()| limit);
    let raised = if wanted > hard {
        set(wanted).or_else(|_| set(hard))
    } else {
        set(hard)
    };
    usize::try_from(raised.unwrap_or(soft)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_fits_into_the_limit() {
        for descriptors in [1_024, 4_096, 20_000, 1 << 20] {
            let Budget { sessions, arrivals } = Budget::within(descriptors, 9_000, 4_096);
            let taken = DESCRIPTORS_RESERVED + sessions * DESCRIPTORS_PER_SESSION + arrivals;
            assert!(
                taken <= descriptors,
                "{descriptors}: {sessions} and {arrivals}"
            );
            assert!(sessions > 0 && arrivals >= ARRIVALS_MIN);
        }
        let wanted = Budget::descriptors(9_000, 4_096);
        let Budget { sessions, arrivals } = Budget::within(wanted, 9_000, 4_096);
        assert_eq!((sessions, arrivals), (9_000, 4_096));
        assert_eq!(Budget::within(usize::MAX, 7, 4_096).sessions, 7);
        assert_eq!(Budget::within(usize::MAX, 7, 8).arrivals, 8);
    }
}
