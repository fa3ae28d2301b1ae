//! The end of a router: its sessions end, or are left to another.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use super::connection::FrontDoor;
use super::drain::drain;
use super::notify;
use super::remaining;
use super::run::ServeError;
use super::run::system;
use super::signals::StopSignals;
use super::survival::Survival;

/// Why this router does not serve any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Stop,
    /// Sessions are left to what keeps them, for the next router.
    Left,
    HandedOver,
}

/// A router that accepts no more.
pub(super) struct Leaving {
    pub(super) door: Arc<FrontDoor>,
    /// Beside accepting.
    pub(super) tasks: JoinSet<()>,
    /// The one of them that answers commands.
    pub(super) admin: AbortHandle,
    pub(super) survival: Survival,
    pub(super) admin_path: PathBuf,
}

fn remove(admin_socket: &Path) -> Result<(), ServeError> {
    match std::fs::remove_file(admin_socket) {
        // Somebody who tidies up was there before.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(system("unlink", admin_socket)),
    }
}

impl Leaving {
    /// Ends what it serves, or leaves it.
    pub(super) async fn end(
        mut self,
        ending: Ending,
        stop: &mut StopSignals,
    ) -> Result<(), ServeError> {
        let door = &self.door;
        let deadline = door.live.rules().configuration.serve.drain_deadline.0;
        match ending {
            Ending::HandedOver => {
                // The socket under this name is the other router's now.
                self.admin.abort();
                self.tasks.spawn(remaining::mind(Arc::clone(door)));
                drain(door, deadline, stop).await;
                return Ok(());
            }
            Ending::Left => {
                // As after a kill, but with no byte in this router's hand: what keeps descriptors
                // is not told that this is the end.
                notify::stopping("leaving sessions to the next router");
                self.tasks.shutdown().await;
                drain(door, Duration::ZERO, stop).await;
            }
            Ending::Stop => {
                notify::stopping("waiting for sessions to end");
                self.survival.let_go_of_listeners();
                door.draining.store(true, Relaxed);
                door.admission.send_waiting_away();
                drain(door, deadline, stop).await;
                self.tasks.shutdown().await;
                // First: a router that waits for the end of this one then makes its own.
                let removed = remove(&self.admin_path);
                self.survival.end().await;
                return removed;
            }
        }
        remove(&self.admin_path)
    }
}
