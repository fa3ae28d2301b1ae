//! How many connections the limit on open files has room for.

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

use crate::config::configuration::Configuration;
use crate::config::limits::ADDRESS_ARRIVALS_MIN;
use crate::config::limits::ADDRESS_ARRIVALS_SHARE;
use crate::config::limits::ARRIVALS_MIN;
use crate::config::limits::ARRIVALS_SHARE;
use crate::config::limits::DESCRIPTORS_PER_RELAYED_SESSION;
use crate::config::limits::DESCRIPTORS_PER_SESSION;
use crate::config::limits::DESCRIPTORS_RESERVED;
use crate::config::limits::LOGINS_WAITING_SHARE;
use crate::datapath::PathRequest;

/// What may be there at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Sessions, those that are logging in included.
    pub sessions: usize,
    /// Connections that have not said yet what they want; one descriptor each.
    pub arrivals: usize,
    /// Logins that wait for their turn; one descriptor each.
    pub waiting: usize,
}

impl Budget {
    /// How many open files these take.
    fn descriptors(self, path: PathRequest) -> usize {
        let sessions = self.sessions.saturating_mul(descriptors_each(path));
        sessions
            .saturating_add(self.arrivals)
            .saturating_add(self.waiting)
            .saturating_add(DESCRIPTORS_RESERVED)
    }

    /// Within so many open files, at most so many of each. Arrivals have a share that sessions do
    /// not get: where there were few, whoever says nothing could keep everybody else waiting. So
    /// have logins that wait, of which there may be as many as arrivals.
    pub fn within(
        descriptors: usize,
        sessions_max: usize,
        arrivals_max: usize,
        path: PathRequest,
    ) -> Self {
        let each = descriptors_each(path);
        let free = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
        let share = (free / ARRIVALS_SHARE).max(ARRIVALS_MIN).min(arrivals_max);
        let waiting = (free / LOGINS_WAITING_SHARE).min(arrivals_max).max(1);
        let room = free.saturating_sub(share + waiting) / each;
        let sessions = sessions_max.min(room).max(1);
        let left = free.saturating_sub(sessions * each);
        let for_arrivals = left.saturating_sub(waiting);
        let arrivals = for_arrivals.max(ARRIVALS_MIN).min(arrivals_max);
        let for_waiting = left.saturating_sub(arrivals);
        let waiting = for_waiting.max(waiting).min(arrivals_max);
        Self {
            sessions,
            arrivals,
            waiting,
        }
    }

    /// Room for all that can be configured.
    #[cfg(test)]
    pub(super) fn ample() -> Self {
        Self::within(usize::MAX, 1 << 20, 1 << 20, PathRequest::Auto)
    }

    /// Of these arrivals, how many one client address may have, where so many are configured.
    pub(super) fn arrivals_of_one_address(self, configured: Option<u32>) -> Option<u32> {
        let share = (self.arrivals / ADDRESS_ARRIVALS_SHARE).max(ADDRESS_ARRIVALS_MIN);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        configured.map(|configured| configured.min(share))
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
    let wanted = Budget {
        sessions: sessions_max,
        arrivals: arrivals_max,
        waiting: arrivals_max,
    };
    let descriptors = raise_descriptor_limit(wanted.descriptors(path));
    let budget = Budget::within(descriptors, sessions_max, arrivals_max, path);
    if budget != wanted {
        tracing::info!(
            sessions_max = budget.sessions,
            arrivals_max = budget.arrivals,
            logins_waiting_max = budget.waiting,
            "connections bounded by the limit on open files"
        );
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
                let taken = budget.descriptors(path);
                assert!(taken <= descriptors, "{path:?}, {descriptors}: {budget:?}");
                assert!(budget.sessions > 0 && budget.arrivals >= ARRIVALS_MIN);
                assert!(budget.waiting >= ARRIVALS_MIN / 2);
            }
            let wanted = Budget {
                sessions: 9_000,
                arrivals: 4_096,
                waiting: 4_096,
            };
            let budget = Budget::within(wanted.descriptors(path), 9_000, 4_096, path);
            assert_eq!(budget, wanted);
            assert_eq!(Budget::within(usize::MAX, 7, 4_096, path).sessions, 7);
            assert_eq!(Budget::within(usize::MAX, 7, 8, path).arrivals, 8);
        }
    }

    #[test]
    fn where_every_session_is_relayed_there_is_room_for_more() {
        let [kernel, relay] = [PathRequest::Kernel, PathRequest::Relay]
            .map(|path| Budget::within(20_000, 9_000, 4_096, path).sessions);
        assert!(kernel < relay);
    }

    #[test]
    fn who_says_nothing_takes_no_more_than_a_part_of_what_is_there() {
        for (descriptors, most) in [(1_024, 129), (20_000, 4_096), (1 << 20, 4_096)] {
            let budget = Budget::within(descriptors, 9_000, 4_096, PathRequest::Auto);
            assert_eq!(budget.arrivals, most, "{descriptors}");
            let of_one = budget.arrivals_of_one_address(Some(1_024)).unwrap();
            assert!(of_one as usize * 4 <= budget.arrivals, "{of_one}");
            assert_eq!(budget.arrivals_of_one_address(Some(5)), Some(5));
            assert_eq!(budget.arrivals_of_one_address(None), None);
        }
    }
}
