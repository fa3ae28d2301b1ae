//! A backend that sends more than the kernel moves well leaves the verdict until its turn is over:
//! the router then reads it as the relay does. When it leaves, and when it comes back.

use std::io;
use std::time::Instant;

use super::client_buffer;
use super::direction::Direction;
use super::handover::CloseReason;
use super::kernel::Pressure;
use super::kernel::Standing;
use super::kernel::Unreceived;
use super::pump::Wait;
use super::session::Loan;
use super::session::Path;
use super::session::Session;
use super::socket;
use super::unsent::unsent;
use super::waiting::Moved;
use crate::config::limits::CLIENT_READS_BYTES;
use crate::config::limits::LAG_LOOK_INTERVAL;
use crate::config::limits::WITHDRAWAL_DEADLINE;
use crate::config::limits::WITHDRAWAL_RETRY_BYTES;

/// How a session's backend stands to the verdict, and what is about to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// It is a source. Not tried to withdraw before so many diverted bytes were read.
    Judged { not_before: u64 },
    /// It is a source, and the private socket is left unread, for it to be blocked by.
    Filling { until: Instant },
    /// It is none any more; what the verdict had diverted is read first.
    Leaving,
    /// It is none, and is read like any socket.
    Native {
        silent_since: Instant,
        /// How much has to be read of it for the client's socket not to be bound any more; nothing
        /// when it is not.
        bound_until: Option<u64>,
    },
    /// It is a source again, and buffers wait for their successors. What had come when that was
    /// last looked at.
    Lagging { received: u64 },
}

impl Default for Backend {
    fn default() -> Self {
        Self::Judged { not_before: 0 }
    }
}

impl Backend {
    /// As another router has left it.
    pub(super) fn of(standing: Standing) -> Self {
        match standing {
            Standing::Judged => Self::default(),
            Standing::Native => Self::Leaving,
            Standing::Returning => Self::Lagging { received: 0 },
        }
    }

    /// Whether the verdict sees its answers, so that it may redirect what it is asked.
    pub(super) fn is_judged(self) -> bool {
        matches!(self, Self::Judged { .. } | Self::Filling { .. })
    }
}

impl Session {
    pub(super) fn backend_standing(&self) -> Backend {
        match &self.path {
            Path::Kernel(session) => session.backend,
            Path::Untried | Path::Relay => Backend::default(),
        }
    }

    /// Whether the private socket, in which there is something and in front of which there is
    /// nothing, stays unread for now. The backend is taken out of the verdict as soon as that is
    /// safe.
    pub(super) fn is_filling(&mut self, loan: &mut Loan<'_>) -> Result<bool, CloseReason> {
        let read_bytes = self.to_client.read_bytes();
        let (Path::Kernel(session), Some(kernel)) = (&mut self.path, loan.kernel.as_deref_mut())
        else {
            return Ok(false);
        };
        let received = kernel.received(&session.enrolment, Direction::ToClient);
        let large = kernel.is_large_turn(&session.enrolment, Direction::ToClient);
        let until = match session.backend {
            Backend::Filling { until } => until,
            Backend::Judged { not_before } if large && received >= not_before => {
                loan.now + WITHDRAWAL_DEADLINE
            }
            _ => return Ok(false),
        };
        // Another router's notices tell it of the next turn, and not this one.
        let ends = session.stays || self.backend_ended || loan.now >= until;
        let pressure = match ends {
            true => Pressure::None,
            false => kernel
                .pressure(&session.enrolment)
                .map_err(failed("probe"))?,
        };
        if pressure == Pressure::Blocked {
            kernel
                .withdraw_backend(&session.enrolment)
                .map_err(|refused| CloseReason::BackendFailed(refused.to_string()))?;
            session.backend = Backend::Leaving;
            session.habit.leaves(loan.now, read_bytes);
            self.meter.add_withdrawal();
            tracing::debug!(received, "a backend leaves the verdict");
            return Ok(false);
        }
        let gives_up = pressure == Pressure::None;
        session.backend = if gives_up {
            Backend::Judged {
                not_before: received + WITHDRAWAL_RETRY_BYTES,
            }
        } else {
            Backend::Filling { until }
        };
        Ok(!gives_up)
    }

    /// Whether the backend has left the verdict, and nothing is left that it had judged.
    pub(super) fn has_left(&mut self, now: Instant) -> Result<bool, CloseReason> {
        let Path::Kernel(session) = &mut self.path else {
            return Ok(false);
        };
        if session.backend != Backend::Leaving {
            return Ok(false);
        }
        session.backend = Backend::Native {
            silent_since: now,
            bound_until: Some(self.to_client.read_bytes() + CLIENT_READS_BYTES),
        };
        self.nothing_is_dropped()?;
        Ok(true)
    }

    /// The last proof that a backend was blocked when it left the verdict: else the kernel has
    /// dropped a buffer, and counted it.
    fn nothing_is_dropped(&self) -> Result<(), CloseReason> {
        match socket::dropped_buffers(&self.backend).map_err(failed("SO_MEMINFO"))? {
            0 => Ok(()),
            count => Err(CloseReason::BackendFailed(format!(
                "the kernel dropped {count} buffers of it"
            ))),
        }
    }

    /// What a backend had sent by the source is still there when it has ended: else its client gets
    /// nothing of what came behind that.
    pub(super) fn nothing_is_purged(
        &mut self,
        unreceived: Unreceived,
        loan: &mut Loan<'_>,
    ) -> Result<(), CloseReason> {
        if !self.backend_ended || !matches!(unreceived, Unreceived::AtSource(_)) {
            return Ok(());
        }
        self.nothing_was_taken_out(loan)
    }

    /// As long as a backend has not called `shutdown`, it is in the maps, and the verdict sees what
    /// it sends.
    pub(super) fn nothing_was_taken_out(&self, loan: &mut Loan<'_>) -> Result<(), CloseReason> {
        let (Path::Kernel(session), Some(kernel)) = (&self.path, loan.kernel.as_deref_mut()) else {
            return Ok(());
        };
        match kernel.was_taken_out(&session.enrolment, &self.backend) {
            Ok(false) => Ok(()),
            Ok(true) => Err(CloseReason::BackendFailed(
                "it called shutdown(2), whereupon the kernel drops what was not read of it; it has \
                 to close"
                    .into(),
            )),
            Err(refused) => Err(CloseReason::BackendFailed(refused.to_string())),
        }
    }

    /// Moves bytes of a backend that is no source.
    pub(super) fn move_native(&mut self, loan: &mut Loan<'_>) -> Result<Moved, CloseReason> {
        self.free_the_client()?;
        let before = self.to_client.read_bytes();
        match self.run_to_the_end(loan)? {
            Wait::Turn => return Ok(Moved::Turn),
            Wait::Writable | Wait::Ended => return Ok(Moved::Done),
            Wait::Readable => {}
        }
        let Path::Kernel(session) = &mut self.path else {
            return Ok(Moved::Done);
        };
        let silence = session.habit.silence();
        if let Backend::Native { silent_since, .. } = &mut session.backend {
            if self.to_client.read_bytes() != before {
                *silent_since = loan.now;
            } else if loan.now >= *silent_since + silence {
                // Not at once again: it may be at work for hours.
                let returned = self.try_return(loan)?;
                return Ok(if returned {
                    Moved::Done
                } else {
                    Moved::Undrained
                });
            }
        }
        Ok(Moved::At(silence))
    }

    /// Moves what no verdict has seen, to the end where there is one. That of a backend that is out
    /// of the verdict; and what one sent that had called `shutdown` for reading, which the kernel
    /// takes out of the maps for it.
    pub(super) fn run_to_the_end(&mut self, loan: &mut Loan<'_>) -> Result<Wait, CloseReason> {
        let wait = self.run_marked(loan, u64::MAX)?;
        // A socket in a sockhash does not report the end by itself.
        if wait == Wait::Readable && self.backend_ended && self.unread_of_backend()? == 0 {
            self.to_client.finish();
            return self.run_marked(loan, 0);
        }
        Ok(wait)
    }

    /// Leaves it to TCP what the client's socket takes, once the client is seen to read.
    fn free_the_client(&mut self) -> Result<(), CloseReason> {
        let Path::Kernel(session) = &mut self.path else {
            return Ok(());
        };
        if let Backend::Native { bound_until, .. } = &mut session.backend
            && bound_until.is_some_and(|until| self.to_client.read_bytes() >= until)
        {
            *bound_until = None;
            client_buffer::free(&self.client)
                .map_err(|error| CloseReason::ClientFailed(error.to_string()))?;
        }
        Ok(())
    }

    /// Whether a backend that is out of the verdict is to come back for what its client sends.
    pub(super) fn comes_back_when_asked(&mut self) -> bool {
        let read_bytes = self.to_client.read_bytes();
        match &mut self.path {
            Path::Kernel(session) => session.habit.is_asked(read_bytes),
            Path::Untried | Path::Relay => false,
        }
    }

    /// Runs the pump from the backend's own socket, with the mark of what is in the router's hand.
    fn run_marked(&mut self, loan: &mut Loan<'_>, allowance: u64) -> Result<Wait, CloseReason> {
        if let (Path::Kernel(session), Some(kernel)) = (&self.path, loan.kernel.as_deref_mut()) {
            kernel.take_in_hand(&session.enrolment, Direction::ToClient);
        }
        let result = self.run_to_client(loan, allowance);
        let flushed = self.to_client.is_flushed();
        if let (Path::Kernel(session), Some(kernel)) = (&mut self.path, loan.kernel.as_deref_mut())
        {
            kernel.record(&mut session.enrolment, Direction::ToClient, 0, flushed);
        }
        result
    }

    fn unread_of_backend(&self) -> Result<u64, CloseReason> {
        socket::unread_bytes(&self.backend).map_err(failed("SIOCINQ"))
    }

    /// Makes a backend a source again that has no reason to send just now: it has read all that it
    /// was sent, all that it sent was read, and it sleeps. Where it sends all the same, nothing is
    /// lost: see [`Backend::Lagging`].
    pub(super) fn try_return(&mut self, loan: &mut Loan<'_>) -> Result<bool, CloseReason> {
        if self.backend_ended
            || !self.to_client.is_flushed()
            || self.unread_of_backend()? != 0
            || unsent(&self.backend).map_err(failed("SIOCOUTQ"))? != 0
        {
            return Ok(false);
        }
        let (Path::Kernel(session), Some(kernel)) = (&mut self.path, loan.kernel.as_deref_mut())
        else {
            return Ok(false);
        };
        if session.stays
            || !kernel
                .is_asleep(&session.enrolment)
                .map_err(failed("probe"))?
        {
            return Ok(false);
        }
        let received = kernel.received(&session.enrolment, Direction::ToClient);
        session.backend = match kernel.return_backend(&session.enrolment, &self.backend) {
            Ok(true) => Backend::Judged {
                not_before: received,
            },
            Ok(false) => Backend::Lagging { received },
            Err(refused) => {
                tracing::warn!(%refused, "the session stays with the relay for now");
                return Ok(false);
            }
        };
        client_buffer::bind(&self.client)
            .map_err(|error| CloseReason::ClientFailed(error.to_string()))?;
        session.habit.returns(loan.now);
        tracing::debug!(received, now = ?session.backend, "a backend comes back to the verdict");
        self.nothing_is_dropped()?;
        self.open_when_flushed(loan);
        Ok(true)
    }

    /// What waits for its successor may have had its event already: it is looked at without one.
    /// Where the client does not take what it was sent, its event comes first.
    pub(super) fn wait_while_lagging(&mut self, now: Instant) {
        let lags = matches!(self.backend_standing(), Backend::Lagging { .. });
        if lags && self.to_client.is_flushed() {
            self.wait_after(Direction::ToClient, &Moved::At(LAG_LOOK_INTERVAL), now);
        }
    }

    /// Sees to buffers that wait for their successors; all others have been read. What is in the
    /// queue is read by hand when the backend sleeps, and has sent nothing since the last look.
    pub(super) fn move_lagging(&mut self, loan: &mut Loan<'_>) -> Result<Moved, CloseReason> {
        let waiting = self.unread_of_backend()?;
        let ended = self.backend_ended;
        let (Path::Kernel(session), Some(kernel)) = (&mut self.path, loan.kernel.as_deref_mut())
        else {
            return Ok(Moved::Done);
        };
        let Backend::Lagging { received: seen } = session.backend else {
            return Ok(Moved::Done);
        };
        let received = kernel.received(&session.enrolment, Direction::ToClient);
        let still = ended
            || received == seen
                && kernel
                    .is_asleep(&session.enrolment)
                    .map_err(failed("probe"))?;
        session.backend = Backend::Lagging { received };
        if !still {
            return Ok(Moved::At(LAG_LOOK_INTERVAL));
        }
        if waiting == 0 {
            kernel.has_returned(&session.enrolment);
            session.backend = Backend::Judged {
                not_before: received,
            };
            self.open_when_flushed(loan);
            return Ok(Moved::Turn);
        }
        let before = self.to_client.read_bytes();
        let wait = self.run_marked(loan, waiting)?;
        // It has sent in this very moment: whose buffer was read is not known.
        let read = self.to_client.read_bytes() - before;
        if self.unreceived(Direction::ToClient, loan) != Unreceived::Nothing || read > waiting {
            return Err(CloseReason::BackendFailed(
                "it sent in the one moment in which the order of its bytes cannot be known".into(),
            ));
        }
        Ok(match wait {
            Wait::Writable => Moved::Done,
            _ => Moved::At(LAG_LOOK_INTERVAL),
        })
    }
}

fn failed(call: &'static str) -> impl Fn(io::Error) -> CloseReason {
    move |error| CloseReason::BackendFailed(format!("{call}: {error}"))
}
