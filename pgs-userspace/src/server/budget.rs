//! How many connections the limit on open files has room for.

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

use crate::config::configuration::Configuration;
use crate::config::limits::ARRIVALS_MIN;
use crate::config::limits::DESCRIPTORS_PER_RELAYED_SESSION;
use crate::config::limits::DESCRIPTORS_PER_SESSION;
use crate::config::limits::DESCRIPTORS_RESERVED;
use crate::datapath::PathRequest;

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
    pub fn descriptors(sessions: usize, arrivals: usize, path: PathRequest) -> usize {
        let sessions = sessions.saturating_mul(descriptors_each(path));
        sessions
            .saturating_add(arrivals)
            .saturating_add(DESCRIPTORS_RESERVED)
    }

    /// Within so many open files, at most so many of each. Sessions come first; what they leave is
    /// for arrivals, which are gone within seconds.
    pub fn within(
        descriptors: usize,
        sessions_max: usize,
        arrivals_max: usize,
        path: PathRequest,
    ) -> Self {
        let each = descriptors_each(path);
        let free = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
        let room = free.saturating_sub(ARRIVALS_MIN) / each;
        let sessions = sessions_max.min(room).max(1);
        let left = free.saturating_sub(sessions * each);
        let arrivals = left.max(ARRIVALS_MIN).min(arrivals_max);
        Self { sessions, arrivals }
    }
}

/// Of one session.
fn descriptors_each(path: PathRequest) -> usize {
    match path {
        PathRequest::Auto | PathRequest::Kernel => DESCRIPTORS_PER_SESSION,
        PathRequest::Relay => DESCRIPTORS_PER_RELAYED_SESSION,
    }
}

/// What of the configured bounds the limit on open files has room for.
pub(super) fn budget(configuration: &Configuration) -> Budget {
    let (limits, path) = (&configuration.limits, configuration.serve.path);
    let (sessions_max, arrivals_max) = (limits.sessions_max, limits.arrivals_max);
    let wanted = Budget::descriptors(sessions_max, arrivals_max, path);
    let descriptors = raise_descriptor_limit(wanted);
    let budget = Budget::within(descriptors, sessions_max, arrivals_max, path);
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

    const PATHS: [PathRequest; 3] = [PathRequest::Auto, PathRequest::Kernel, PathRequest::Relay];

    #[test]
    fn what_is_promised_fits_into_the_limit() {
        for path in PATHS {
            for descriptors in [1_024, 4_096, 20_000, 1 << 20] {
                let budget = Budget::within(descriptors, 9_000, 4_096, path);
                let Budget { sessions, arrivals } = budget;
                let taken = Budget::descriptors(sessions, arrivals, path);
                assert!(taken <= descriptors, "{path:?}, {descriptors}: {budget:?}");
                assert!(sessions > 0 && arrivals >= ARRIVALS_MIN);
            }
            let wanted = Budget::descriptors(9_000, 4_096, path);
            let Budget { sessions, arrivals } = Budget::within(wanted, 9_000, 4_096, path);
            assert_eq!((sessions, arrivals), (9_000, 4_096));
            assert_eq!(Budget::within(usize::MAX, 7, 4_096, path).sessions, 7);
            assert_eq!(Budget::within(usize::MAX, 7, 8, path).arrivals, 8);
        }
    }

    #[test]
    fn where_every_session_is_relayed_there_is_room_for_more() {
        let [kernel, relay] = [PathRequest::Kernel, PathRequest::Relay]
            .map(|path| Budget::within(20_000, 9_000, 4_096, path).sessions);
        assert!(kernel < 9_000);
        assert_eq!(relay, 9_000);
    }
}
