//! The end of a router: its sessions end, or are left to another.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::FrontDoor;
use super::notify;
use super::run::ServeError;
use super::run::system;
use super::signals::StopSignals;
use super::survival::Survival;
use crate::config::limits::DRAIN_CHECK_INTERVAL;
use crate::config::limits::SECURE_RELAY_END_DEADLINE;
use crate::datapath::handover::CloseReason;

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
    pub(super) survival: Survival,
    pub(super) admin_path: PathBuf,
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
                // The sockets under these names are the other router's now.
                self.tasks.shutdown().await;
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
                drain(door, deadline, stop).await;
                self.tasks.shutdown().await;
                self.survival.end().await;
            }
        }
        let path = &self.admin_path;
        std::fs::remove_file(path).map_err(system("unlink", path))
    }
}

/// Waits for the sessions to end by themselves, at most so long, then ends them.
async fn drain(door: &Arc<FrontDoor>, deadline: Duration, stop: &mut StopSignals) {
    let sessions = door.sessions.live();
    tracing::info!(
        sessions,
        seconds = deadline.as_secs(),
        "draining; a second signal ends at once"
    );
    tokio::select! {
        () = empty(door) => {}
        () = tokio::time::sleep(deadline) => {}
        () = stop.first() => {}
    }
    let sessions = door.sessions.live();
    if sessions > 0 {
        tracing::warn!(sessions, "ending the sessions that are left");
    }
    let data_path = Arc::clone(&door.data_path);
    door.sessions.end_all(&CloseReason::Shutdown);
    let ended = tokio::task::spawn_blocking(move || data_path.shut_down(&CloseReason::Shutdown));
    if ended.await.is_err() {
        tracing::error!("the data path did not shut down");
    }
    if timeout(SECURE_RELAY_END_DEADLINE, empty(door))
        .await
        .is_err()
    {
        tracing::warn!(sessions = door.sessions.live(), "sessions were cut off");
    }
    tracing::info!("stopped");
}

/// Waits until there are no sessions.
async fn empty(door: &FrontDoor) {
    while door.sessions.live() > 0 {
        tokio::time::sleep(DRAIN_CHECK_INTERVAL).await;
    }
}
