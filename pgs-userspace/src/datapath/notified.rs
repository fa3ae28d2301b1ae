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
            notices.read(|place| bring(&workers, place));
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

fn bring(workers: &[WorkerReach], place: kernel::Place) {
    let part = kernel::part_of(place, workers.len() as u32);
    if !workers[part as usize % workers.len()].notice(place) {
        tracing::error!("a worker has ended: a client's bytes wait");
    }
}
