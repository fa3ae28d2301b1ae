//! Ends sessions that have moved no byte for as long as their tenant allows.
//!
//! What the router moves itself it has written down; what the kernel moves is seen by its counters
//! having changed since the last look. A look takes one lock after another for a moment, and there
//! is none where no session has such a bound.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::connection::FrontDoor;
use super::counters::Counters;
use super::sessions::Session;
use crate::config::limits::IDLE_CHECK_INTERVAL;
use crate::datapath::handover::CloseReason;
use crate::datapath::meter::Path;

/// What was seen of a session with such a bound.
#[derive(Debug)]
pub(super) struct Idleness {
    timeout: Duration,
    kernel_bytes: AtomicU64,
    /// Since the session's beginning.
    kernel_changed_at_milliseconds: AtomicU64,
}

impl Idleness {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            kernel_bytes: AtomicU64::new(0),
            kernel_changed_at_milliseconds: AtomicU64::new(0),
        }
    }

    /// Looks again: whether nothing has moved for so long. `age`, since the session's beginning;
    /// `relayed`, since the router last moved a byte; `kernel_bytes`, moved by the kernel so far.
    fn is_over(&self, age: Duration, relayed: Duration, kernel_bytes: u64) -> bool {
        if self.kernel_bytes.swap(kernel_bytes, Relaxed) != kernel_bytes {
            let at = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            self.kernel_changed_at_milliseconds.store(at, Relaxed);
        }
        let changed_at = self.kernel_changed_at_milliseconds.load(Relaxed);
        let kernel = age.saturating_sub(Duration::from_millis(changed_at));
        relayed.min(kernel) >= self.timeout
    }
}

/// Looks for ever.
pub(super) async fn watch(door: Arc<FrontDoor>) {
    loop {
        tokio::time::sleep(IDLE_CHECK_INTERVAL).await;
        for session in door
            .sessions
            .bounded_by_idleness(|session| is_over(&door, session))
        {
            Counters::add(&door.counters.sessions_idle);
            tracing::info!(session = session.id, tenant = %session.tenant, "session idle too long");
            door.sessions
                .end(&session, &CloseReason::Idle, &door.data_path);
        }
    }
}

fn is_over(door: &FrontDoor, session: &Session) -> bool {
    let meter = &session.meter;
    // A login has a deadline of its own.
    meter.path() != Path::Startup
        && session.idleness.as_ref().is_some_and(|idleness| {
            let kernel_bytes = door.data_path.kernel_bytes(meter);
            idleness.is_over(meter.age(), meter.idle(), kernel_bytes)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_neither_the_router_nor_the_kernel_moves_is_idle() {
        let seconds = Duration::from_secs;
        let idleness = Idleness::new(seconds(10));
        assert!(!idleness.is_over(seconds(9), seconds(9), 0));
        assert!(idleness.is_over(seconds(10), seconds(10), 0));
        assert!(!idleness.is_over(seconds(20), seconds(1), 0));
        assert!(
            !idleness.is_over(seconds(21), seconds(15), 7),
            "the kernel moved"
        );
        assert!(!idleness.is_over(seconds(30), seconds(24), 7));
        assert!(idleness.is_over(seconds(31), seconds(25), 7));
    }
}
