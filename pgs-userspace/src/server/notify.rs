//! What the service manager is told (sd_notify(3)). Where there is none, that is nothing.

use sd_notify::NotifyState;

/// Serving, and how.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Ending, and what is waited for.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that does not hear it acts by its own time limits: nothing more can be done here.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
