//! Ctrl-C, SIGTERM and SIGHUP, while a command works.

use std::fs;
use std::future::Future;
use std::future::pending;

use nix::sys::signal::Signal as Number;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::error::Error;
use crate::error::Kind;

/// The wish that a command end. One that comes while nothing can be ended is kept until something
/// can: from [`Interruption::listen`] on, no signal is lost.
///
/// A signal that was ignored when the process began stays so: by that `nohup` keeps a command from
/// ending with its terminal, and a shell one in the background from Ctrl-C.
#[derive(Debug)]
pub(super) struct Interruption {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Interruption {
    /// Takes the signals from now on.
    ///
    /// # Errors
    /// The process cannot.
    pub(super) fn listen() -> Result<Self, Error> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let listen = |number: Number| {
            if ignored & (1 << (number as u32 - 1)) != 0 {
                return Ok(None);
            }
            let listening = signal(SignalKind::from_raw(number as i32));
            listening.map(Some).map_err(|error| {
                Error::new(
                    Kind::Internal,
                    format!("cannot listen for signals: {error}"),
                )
            })
        };
        Ok(Self {
            interrupt: listen(Number::SIGINT)?,
            terminate: listen(Number::SIGTERM)?,
            hang_up: listen(Number::SIGHUP)?,
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
            () = comes(&mut self.interrupt) => {}
            () = comes(&mut self.terminate) => {}
            () = comes(&mut self.hang_up) => {}
            done = work => return done,
        }
        Err(Error::new(Kind::Interrupted, "interrupted"))
    }
}

/// Never, where it is ignored.
async fn comes(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// The signals that a process ignores, by what its `/proc/<pid>/status` says: one bit each, from 1
/// on (proc_pid_status(5)).
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Where it cannot be read none is taken to be: all of them end what a user does not want.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tpgs\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored(status), 1 << 12 | 1);
        assert_eq!(ignored("Name:\tpgs\n"), 0);
    }

    #[tokio::test]
    async fn a_signal_between_two_pieces_of_work_is_not_lost() {
        let mut interruption = Interruption::listen().unwrap();
        if interruption.hang_up.is_none() {
            println!("skipped: the tests were started with SIGHUP ignored, as by nohup");
            return;
        }
        interruption.ends(async { Ok(()) }).await.unwrap();
        raise(Signal::SIGHUP).unwrap();
        let error = interruption.ends(pending::<Result<(), Error>>()).await;
        assert_eq!(error.unwrap_err().kind(), Kind::Interrupted);
    }
}
