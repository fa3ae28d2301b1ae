//! The thread that reads the verdict's notices.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use super::DataPathError;
use super::kernel;
use super::kernel::KernelPath;
use super::kernel::KernelPathError;
use super::reach::WorkerHandle;
use crate::config::limits::NOTICES_WAIT;
use crate::privileges;

/// Brings the verdict's notices to the worker that has the session. Ends with the process.
pub(super) fn follow(
    kernel: &KernelPath,
    workers: &[WorkerHandle],
    followed: Arc<AtomicBool>,
) -> Result<(), DataPathError> {
    let refused = |error: KernelPathError| DataPathError::KernelRefused(error.to_string());
    let mut notices = kernel.notices().map_err(refused)?;
    let workers: Vec<_> = workers.iter().map(WorkerHandle::reach).collect();
    let mut run = move || {
        while followed.load(SeqCst) {
            let parts = workers.len() as u32;
            let told = notices.wait(Some(NOTICES_WAIT), |place| {
                let worker = &workers[kernel::part_of(place, parts) as usize % workers.len()];
                if !worker.notice(place) {
                    tracing::error!("a worker's commands are full: a client's bytes wait");
                }
            });
            if let Err(error) = told {
                tracing::error!(%error, "poll of the verdict's notices failed; clients may wait");
                return;
            }
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
