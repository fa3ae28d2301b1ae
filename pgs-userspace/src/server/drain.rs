//! Waiting for sessions to end, and ending those that do not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::FrontDoor;
use super::signals::StopSignals;
use super::strangers;
use crate::config::limits::DRAIN_CHECK_INTERVAL;
use crate::config::limits::SECURE_RELAY_END_DEADLINE;
use crate::datapath::handover::CloseReason;

/// Waits for the sessions to end by themselves, at most so long, then ends them.
pub(super) async fn drain(door: &Arc<FrontDoor>, deadline: Duration, stop: &mut StopSignals) {
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
    strangers::say_what_was_left_out();
    tracing::info!("stopped");
}

/// Waits until there are no sessions.
async fn empty(door: &FrontDoor) {
    while door.sessions.live() > 0 {
        tokio::time::sleep(DRAIN_CHECK_INTERVAL).await;
    }
}
