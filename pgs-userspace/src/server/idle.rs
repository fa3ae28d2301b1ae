//! Ends sessions that have moved no byte for as long as their tenant allows.
//!
//! A look takes one lock after another for a moment, and there is none where no session has such a
//! bound.

use std::sync::Arc;

use super::connection::FrontDoor;
use super::counters::Counters;
use super::sessions::Session;
use super::sessions::Sessions;
use crate::config::limits::IDLE_CHECK_INTERVAL;
use crate::datapath::handover::CloseReason;
use crate::datapath::meter::Path;

/// Looks for ever.
pub(super) async fn watch(door: Arc<FrontDoor>) {
    loop {
        tokio::time::sleep(IDLE_CHECK_INTERVAL).await;
        let over = door
            .sessions
            .bounded_by_idleness(|session| is_over(&door, session));
        for session in &over {
            Counters::add(&door.counters.sessions_idle);
            tracing::info!(session = session.id, tenant = %session.tenant, "session idle too long");
        }
        Sessions::end(&over, &CloseReason::Idle, &door.data_path);
    }
}

fn is_over(door: &FrontDoor, session: &Session) -> bool {
    let meter = &session.meter;
    // A login has a deadline of its own.
    meter.path() != Path::Startup
        && session
            .idle_timeout
            .is_some_and(|timeout| door.data_path.idle(meter) >= timeout)
}
