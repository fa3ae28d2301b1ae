//! What happened since the start, by name.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::protocol::refusal::Refusal;

/// Counters of the front door.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections accepted.
    pub(super) accepted: AtomicU64,
    /// Connections that said nothing and closed.
    pub(super) silent: AtomicU64,
    /// Connections that had said nothing yet and were closed to make room for others.
    pub(super) crowded_out: AtomicU64,
    /// Connections whose first bytes were not the protocol's.
    pub(super) malformed: AtomicU64,
    /// TLS handshakes that succeeded.
    pub(super) tls_handshakes: AtomicU64,
    /// TLS handshakes that failed.
    pub(super) tls_failed: AtomicU64,
    /// Connections whose TLS was passed through to the tenant's server.
    pub(super) tls_passed_through: AtomicU64,
    /// Logins that the backend itself refused.
    pub(super) login_failed: AtomicU64,
    /// Sessions that began: handed to the data path, or relayed over TLS.
    pub(super) sessions: AtomicU64,
    /// CancelRequests delivered to the backend that issued the key.
    pub(super) cancels_routed: AtomicU64,
    /// CancelRequests with a key that nobody has.
    pub(super) cancels_unknown: AtomicU64,
    /// CancelRequests from an address that the tenant does not let in.
    pub(super) cancels_refused: AtomicU64,
    /// CancelRequests beyond the rate of their client address.
    pub(super) cancels_limited: AtomicU64,
    /// Sessions ended because they moved no byte for too long.
    pub(super) sessions_idle: AtomicU64,
    /// CancelRequests beyond their budget.
    pub(super) cancels_dropped: AtomicU64,
    /// Refusals by their short name; there are as many names as kinds of refusal.
    refusals: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// Counts one.
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, refusal: &Refusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(refusal.name()).or_default() += 1;
    }

    /// All of them by name.
    pub(super) fn snapshot(&self) -> BTreeMap<String, u64> {
        let plain = [
            ("connections_accepted", &self.accepted),
            ("connections_silent", &self.silent),
            ("connections_crowded_out", &self.crowded_out),
            ("connections_malformed", &self.malformed),
            ("tls_handshakes", &self.tls_handshakes),
            ("tls_handshakes_failed", &self.tls_failed),
            ("tls_passed_through", &self.tls_passed_through),
            ("logins_failed", &self.login_failed),
            ("sessions", &self.sessions),
            ("cancels_routed", &self.cancels_routed),
            ("cancels_unknown", &self.cancels_unknown),
            ("cancels_refused", &self.cancels_refused),
            ("cancels_limited", &self.cancels_limited),
            ("cancels_dropped", &self.cancels_dropped),
            ("sessions_ended_idle", &self.sessions_idle),
        ];
        let refusals = self
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        plain
            .into_iter()
            .map(|(name, counter)| (name.to_owned(), counter.load(Relaxed)))
            .chain(
                refusals
                    .into_iter()
                    .map(|(name, count)| (format!("refused_{name}"), count)),
            )
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_counters_that_there_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, table) = document.split_once("## Closed without a word").unwrap();
        let names: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `"))
            .flat_map(|(_, names)| names.split("`, `"))
            .collect();
        assert!(names.len() > 5, "{names:?}");
        let counters = Counters::default().snapshot();
        for name in names {
            assert!(counters.contains_key(name), "there is no counter `{name}`");
        }
    }
}
