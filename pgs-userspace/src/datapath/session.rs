//! One session on the data path: what it does on an event, and what it waits for afterwards.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use nix::sys::epoll::EpollFlags;

use super::handover::CloseReason;
use super::handover::Handover;
use super::handover::Lease;
use super::kernel::Enrolment;
use super::kernel::KernelAccess;
use super::kernel::Refused;
use super::meter::Meter;
use super::pump::Pump;
use super::pump::PumpError;
use super::pump::Wait;
use super::socket;
use crate::config::limits::CLOSE_LINGER;
use crate::config::limits::DRAIN_POLL_INTERVAL_MAX;
use crate::config::limits::DRAIN_POLL_INTERVAL_MIN;

/// Which socket of a session an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
}

/// What a worker lends a session for one event.
#[derive(Debug)]
pub(super) struct Loan<'a> {
    pub(super) scratch: &'a mut [u8],
    pub(super) kernel: Option<&'a mut KernelAccess>,
    pub(super) now: Instant,
}

/// Events that a session waits for. `None`: the socket has nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interests {
    pub(super) client: Option<EpollFlags>,
    pub(super) backend: Option<EpollFlags>,
}

/// A live session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: TcpStream,
    pub(super) backend: UnixStream,
    to_backend: Pump,
    to_client: Pump,
    flow: Flow,
    /// The backend has closed its end altogether.
    backend_gone: bool,
    /// When to look again without an event.
    pub(super) wake_at: Option<Instant>,
    /// The `wake_at` that the worker has set its alarm to.
    pub(super) alarm_at: Option<Instant>,
    poll_interval: Duration,
    meter: Arc<Meter>,
    lease: Box<dyn Lease>,
}

/// Who moves the bytes from the backend to the client.
#[derive(Debug)]
enum Flow {
    /// The relay, until the session starts.
    Untried,
    /// The relay, for good.
    Relay,
    /// The verdict program; the pump only what it let pass.
    Kernel(Enrolment),
}

type Outcome = Result<(), CloseReason>;

impl Session {
    /// Takes a session over; it will try to enrol in the kernel path if `try_kernel`.
    pub(super) fn begin(handover: Handover, try_kernel: bool) -> Self {
        let Handover {
            client,
            backend,
            pending_to_backend,
            pending_to_client,
            meter,
            lease,
        } = handover;
        meter.begin_relay(None);
        let flow = if try_kernel {
            Flow::Untried
        } else {
            Flow::Relay
        };
        Self {
            client,
            backend,
            to_backend: Pump::from_client(&pending_to_backend),
            to_client: Pump::from_backend(&pending_to_client),
            flow,
            backend_gone: false,
            wake_at: None,
            alarm_at: None,
            poll_interval: DRAIN_POLL_INTERVAL_MIN,
            meter,
            lease,
        }
    }

    /// Enrols, then moves what can be moved before any event: in this order, because a backend that
    /// has been told nothing since its ReadyForQuery says nothing.
    pub(super) fn start(&mut self, loan: &mut Loan<'_>) -> Outcome {
        self.pump_to_client(loan)?;
        self.try_enrol(loan)?;
        self.pump_to_backend(loan)?;
        self.settle(loan)
    }

    /// Acts on what epoll reported.
    pub(super) fn on_event(
        &mut self,
        side: Side,
        events: EpollFlags,
        loan: &mut Loan<'_>,
    ) -> Outcome {
        let failed = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        match side {
            Side::Client if failed && !self.to_client.is_ended() => {
                return Err(CloseReason::ClientFailed(
                    socket::pending_error(&self.client).to_string(),
                ));
            }
            Side::Client => {
                self.pump_to_backend(loan)?;
                self.pump_to_client(loan)?;
            }
            Side::Backend => {
                self.backend_gone |= events.contains(EpollFlags::EPOLLHUP);
                let ended = failed || events.contains(EpollFlags::EPOLLRDHUP);
                self.pump_to_client_until(loan, ended)?;
                self.pump_to_backend(loan)?;
            }
        }
        self.settle(loan)
    }

    /// Acts on the time that `wake_at` named.
    pub(super) fn on_time(&mut self, loan: &mut Loan<'_>) -> Outcome {
        self.wake_at = None;
        if self.to_client.is_ended() {
            return Err(self.close_reason());
        }
        self.pump_to_client_until(loan, true)?;
        self.settle(loan)
    }

    /// What to wait for now.
    pub(super) fn interests(&self, kernel: Option<&KernelAccess>) -> Interests {
        let mut client = EpollFlags::empty();
        let mut backend = EpollFlags::empty();
        match self.to_backend.wait() {
            Wait::Readable | Wait::Turn => client |= EpollFlags::EPOLLIN,
            Wait::Writable => backend |= EpollFlags::EPOLLOUT,
            Wait::Ended => {}
        }
        let redirected = match (&self.flow, kernel) {
            (Flow::Kernel(enrolment), Some(kernel)) => kernel.redirects(enrolment),
            _ => false,
        };
        let draining = matches!(self.flow, Flow::Kernel(_)) && self.wake_at.is_some();
        let mut reading = false;
        match self.to_client.wait() {
            Wait::Readable | Wait::Turn if draining => {}
            // With EPOLLIN every redirected buffer would wake this thread for nothing.
            Wait::Readable | Wait::Turn if redirected => backend |= EpollFlags::EPOLLRDHUP,
            Wait::Readable | Wait::Turn => {
                backend |= EpollFlags::EPOLLIN;
                reading = true;
            }
            Wait::Writable => client |= EpollFlags::EPOLLOUT,
            Wait::Ended => {}
        }
        // A socket that hung up reports so for ever: it is listened to no more once that is known
        // and all is read.
        let backend_done = self.backend_gone && !reading;
        let client_done = self.to_backend.is_ended() && self.to_client.is_ended();
        Interests {
            client: (!client_done).then_some(client),
            backend: (!backend_done).then_some(backend),
        }
    }

    fn pump_to_backend(&mut self, loan: &mut Loan<'_>) -> Outcome {
        let meter = &self.meter;
        let moved = |bytes| meter.add_to_backend(bytes);
        let result =
            self.to_backend
                .run(&self.client, &self.backend, loan.scratch, u64::MAX, moved);
        match result {
            Ok(_) => Ok(()),
            Err(PumpError::Source(error)) => Err(CloseReason::ClientFailed(error.to_string())),
            // The backend is going: its last words are still to be delivered.
            Err(PumpError::Target(_)) => {
                self.to_backend.discard();
                Ok(())
            }
        }
    }

    fn pump_to_client(&mut self, loan: &mut Loan<'_>) -> Outcome {
        self.pump_to_client_until(loan, false)
    }

    /// `ended`: the backend has sent its last byte.
    fn pump_to_client_until(&mut self, loan: &mut Loan<'_>, ended: bool) -> Outcome {
        let Flow::Kernel(enrolment) = &mut self.flow else {
            return self.run_to_client(loan, u64::MAX).map(drop);
        };
        let Some(kernel) = loan.kernel.as_deref_mut() else {
            return Err(CloseReason::BackendFailed("the kernel path is gone".into()));
        };
        let allowance = kernel.unreceived(enrolment);
        if allowance > 0 || !self.to_client.is_flushed() {
            let read_before = self.to_client.read_bytes();
            let meter = &self.meter;
            let result = self.to_client.run(
                &self.backend,
                &self.client,
                loan.scratch,
                allowance,
                |bytes| meter.add_to_client(bytes),
            );
            let received = self.to_client.read_bytes() - read_before;
            kernel.record(enrolment, received, self.to_client.is_flushed());
            result.map_err(client_or_backend)?;
        }
        if ended { self.drain(loan) } else { Ok(()) }
    }

    fn run_to_client(&mut self, loan: &mut Loan<'_>, allowance: u64) -> Result<Wait, CloseReason> {
        let meter = &self.meter;
        let moved = |bytes| meter.add_to_client(bytes);
        self.to_client
            .run(&self.backend, &self.client, loan.scratch, allowance, moved)
            .map_err(client_or_backend)
    }

    /// The backend has ended: when everything that was redirected has reached the client's socket,
    /// the rest of the closing is the relay's.
    fn drain(&mut self, loan: &mut Loan<'_>) -> Outcome {
        let (Flow::Kernel(enrolment), Some(kernel)) = (&self.flow, loan.kernel.as_deref_mut())
        else {
            return Ok(());
        };
        let drained = self.to_client.is_flushed()
            && kernel.unreceived(enrolment) == 0
            && kernel
                .is_drained(enrolment, &self.client)
                .map_err(|error| CloseReason::ClientFailed(error.to_string()))?;
        if !drained {
            self.wake_at = Some(loan.now + self.poll_interval);
            self.poll_interval = (self.poll_interval * 2).min(DRAIN_POLL_INTERVAL_MAX);
            return Ok(());
        }
        self.meter.end_kernel(kernel.end(enrolment));
        self.flow = Flow::Relay;
        self.run_to_client(loan, u64::MAX).map(drop)
    }

    /// After every event: enrol when quiet, close when over.
    fn settle(&mut self, loan: &mut Loan<'_>) -> Outcome {
        if self.to_client.is_ended() {
            if self.to_backend.is_ended() {
                return Err(self.close_reason());
            }
            if self.backend_gone && self.wake_at.is_none() {
                // Closing with unread input would reset the connection and could take the last
                // message with it: the client gets a moment to close by itself.
                self.to_backend.discard();
                self.wake_at = Some(loan.now + CLOSE_LINGER);
            }
            return Ok(());
        }
        Ok(())
    }

    /// Tries to enrol, once: later it could never be certain that the backend is not just sending.
    fn try_enrol(&mut self, loan: &mut Loan<'_>) -> Outcome {
        let quiet = self.to_client.wait() == Wait::Readable;
        let (Flow::Untried, Some(kernel)) = (&self.flow, loan.kernel.as_deref_mut()) else {
            return Ok(());
        };
        let enrolled = if quiet {
            kernel.enrol(&self.client, &self.backend)
        } else {
            Err(Refused::Failed("the client does not read".into()))
        };
        self.flow = match enrolled {
            Ok(enrolment) => {
                self.meter.begin_kernel(enrolment.slot());
                Flow::Kernel(enrolment)
            }
            Err(Refused::Contended) => {
                return Err(CloseReason::BackendFailed(Refused::Contended.to_string()));
            }
            Err(Refused::Failed(reason)) => {
                tracing::info!(reason, "session stays with the relay");
                self.meter.begin_relay(Some(reason));
                Flow::Relay
            }
        };
        Ok(())
    }

    fn close_reason(&self) -> CloseReason {
        if self.backend_gone {
            CloseReason::Backend
        } else {
            CloseReason::Client
        }
    }

    /// Ends the session: out of the maps, both sockets closed, the lease told.
    pub(super) fn close(self, reason: CloseReason, kernel: Option<&mut KernelAccess>) {
        let Self {
            client,
            backend,
            flow,
            meter,
            lease,
            ..
        } = self;
        if let (Flow::Kernel(enrolment), Some(kernel)) = (&flow, kernel) {
            meter.end_kernel(kernel.end(enrolment));
        }
        drop(backend);
        drop(client);
        lease.closed(reason);
    }

    /// Whether this is the session that `meter` counts.
    pub(super) fn is_counted_on(&self, meter: &Arc<Meter>) -> bool {
        Arc::ptr_eq(&self.meter, meter)
    }
}

fn client_or_backend(error: PumpError) -> CloseReason {
    match error {
        PumpError::Source(error) => CloseReason::BackendFailed(error.to_string()),
        PumpError::Target(error) => CloseReason::ClientFailed(error.to_string()),
    }
}
