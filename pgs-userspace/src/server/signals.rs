//! The signals that `pgs serve` hears.

use std::path::Path;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use super::run::ServeError;
use super::run::system;

/// All of them. Those that come before anybody waits for them are not lost.
pub(super) struct Signals {
    pub(super) stop: StopSignals,
    /// SIGUSR1: end, and leave sessions to the next router.
    pub(super) leave: Signal,
    /// SIGHUP: read the configuration again.
    pub(super) hangup: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, ServeError> {
        Ok(Self {
            stop: StopSignals {
                terminate: listen(SignalKind::terminate())?,
                interrupt: listen(SignalKind::interrupt())?,
            },
            leave: listen(SignalKind::user_defined1())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

/// SIGTERM and SIGINT.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// The next of either.
    pub(super) async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(system("sigaction", Path::new("signals")))
}
