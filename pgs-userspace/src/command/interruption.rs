//! Ctrl-C, SIGTERM and SIGHUP, while a command works.

use std::future::Future;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::error::Error;
use crate::error::Kind;

/// The wish that a command end. One that comes while nothing can be ended is kept until something
/// can: from [`Interruption::listen`] on, no signal is lost.
#[derive(Debug)]
pub(super) struct Interruption {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interruption {
    /// Takes the signals from now on.
    ///
    /// # Errors
    /// The process cannot.
    pub(super) fn listen() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Error::new(
                    Kind::Internal,
                    format!("cannot listen for signals: {error}"),
                )
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Ends the work where a signal asks for it. What the work had begun stays as it is: the
    /// registry says what was being done.
    ///
    /// # Errors
    /// The work's own, or [`Kind::Interrupted`].
    pub(super) async fn ends<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
            done = work => return done,
        }
        Err(Error::new(Kind::Interrupted, "interrupted"))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;
    use nix::sys::signal::raise;

    use super::*;

    #[tokio::test]
    async fn a_signal_between_two_pieces_of_work_is_not_lost() {
        let mut interruption = Interruption::listen().unwrap();
        interruption.ends(async { Ok(()) }).await.unwrap();
        raise(Signal::SIGHUP).unwrap();
        let error = interruption
            .ends(std::future::pending::<Result<(), Error>>())
            .await;
        assert_eq!(error.unwrap_err().kind(), Kind::Interrupted);
    }
}
