//! The thread that reads the verdict's notices.

use std::io;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::kernel;
use super::kernel::Notices;
use super::reach::WorkerHandle;
use super::reach::WorkerReach;
use crate::config::limits::NOTICES_OF_FULL_RING;
use crate::config::limits::NOTICES_WAIT;
use crate::privileges;

/// Whether notices are read here. Those of sessions that another router has are that one's to
/// read: each is there once, and two readers would take them from one another.
#[derive(Debug, Default)]
pub(super) struct Following {
    paused: Mutex<bool>,
    resumed: Condvar,
}

impl Following {
    /// No notice is read any more once this returns.
    pub(super) fn pause(&self) {
        *self.lock() = true;
    }

    /// Notices are read again.
    pub(super) fn resume(&self) {
        *self.lock() = false;
        self.resumed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while_paused(&self) -> MutexGuard<'_, bool> {
        self.resumed
            .wait_while(self.lock(), |paused| *paused)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the verdict's notices to the worker that has the session. Ends with the process.
pub(super) fn follow(
    mut notices: Notices,
    workers: &[WorkerHandle],
    following: Arc<Following>,
) -> io::Result<()> {
    let workers: Vec<_> = workers.iter().map(WorkerHandle::reach).collect();
    let mut run = move || {
        loop {
            drop(following.wait_while_paused());
            if let Err(error) = notices.wait(NOTICES_WAIT) {
                tracing::error!(%error, "poll of the verdict's notices failed; clients may wait");
                return;
            }
            // Who pauses waits for this lock: nothing is read afterwards.
            let _reading = following.wait_while_paused();
            let count = notices.read(|place| bring(&workers, place));
            make_up_for_lost(&workers, count);
        }
    };
    std::thread::Builder::new()
        .name("notices".into())
        .spawn(move || {
            privileges::relinquish_or_log();
            run();
        })?;
    Ok(())
}

/// So many notices were read at once. As many as the ring holds: others may have found no room.
fn make_up_for_lost(workers: &[WorkerReach], count: usize) {
    if count >= NOTICES_OF_FULL_RING {
        tracing::warn!(
            count,
            "the ring of notices was full: all sessions are looked at"
        );
        for worker in workers {
            worker.look_at_all();
        }
    }
}

fn bring(workers: &[WorkerReach], place: kernel::Place) {
    let part = kernel::part_of(place, workers.len() as u32);
    if !workers[part as usize % workers.len()].notice(place) {
        tracing::error!("a worker has ended: a client's bytes wait");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[test]
    fn a_full_ring_has_every_session_looked_at() {
        let (worker, inbox) = WorkerReach::new(1).unwrap();
        let asked = |count| {
            make_up_for_lost(std::slice::from_ref(&worker), count);
            let woken = inbox.wake.read().is_ok();
            let asked = inbox.look_at_all.swap(false, SeqCst);
            assert_eq!(woken, asked);
            asked
        };
        // The kernel refuses a notice that would fill the ring to its last byte.
        assert!(asked(pgs_common::flow::NOTICES_BYTES as usize / 16 - 1));
        assert!(!asked(pgs_common::flow::NOTICES_BYTES as usize / 16 - 2));
    }
}
