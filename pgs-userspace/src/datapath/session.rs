//! One session on the data path: what it does on an event, and what it waits for afterwards.
//! How its bytes are moved is in `crossing`.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::epoll::EpollFlags;

use super::client_buffer;
use super::handover::CloseReason;
use super::handover::Handover;
use super::handover::Lease;
use super::kernel::Enrolment;
use super::kernel::KernelAccess;
use super::kernel::Place;
use super::kernel::Refused;
use super::meter::Meter;
use super::pump::Pump;
use super::pump::Wait;
use super::relapse::Habit;
use super::socket;
use super::succession::shut_down;
use super::waiting::DrainIntervals;
use super::withdrawal::Backend;
use crate::config::limits::CLOSE_LINGER;

/// Which socket of a session an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
    /// The private socket of the flow to the client.
    Aside,
}

/// What a worker lends a session for one event.
#[derive(Debug)]
pub(super) struct Loan<'a> {
    pub(super) scratch: &'a mut [u8],
    pub(super) kernel: Option<&'a mut KernelAccess>,
    pub(super) now: Instant,
}

/// Events that a session waits for. `None`: the socket has nothing more to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Interests {
    pub(super) client: Option<EpollFlags>,
    pub(super) backend: Option<EpollFlags>,
    pub(super) aside: Option<EpollFlags>,
}

/// A live session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: TcpStream,
    pub(super) backend: UnixStream,
    pub(super) to_backend: Pump,
    pub(super) to_client: Pump,
    pub(super) path: Path,
    /// The client has sent its last byte, which epoll alone tells of on the kernel path.
    pub(super) client_ended: bool,
    /// The backend has sent its last byte.
    pub(super) backend_ended: bool,
    /// The backend has closed its end altogether.
    pub(super) backend_gone: bool,
    /// When the client is closed on that does not close after its backend.
    linger_until: Option<Instant>,
    /// When to look again without an event.
    pub(super) wake_at: Option<Instant>,
    /// The `wake_at` that the worker has set its alarm to.
    pub(super) alarm_at: Option<Instant>,
    pub(super) drain_intervals: DrainIntervals,
    account: u32,
    pub(super) meter: Arc<Meter>,
    pub(super) lease: Box<dyn Lease>,
}

/// Who moves the bytes.
#[derive(Debug)]
pub(super) enum Path {
    /// The relay, until the session starts.
    Untried,
    /// The relay, for good.
    Relay,
    /// The verdict program; the pumps what it diverts.
    Kernel(KernelSession),
}

/// A session with flows in the kernel.
#[derive(Debug)]
pub(super) struct KernelSession {
    pub(super) enrolment: Enrolment,
    /// Whether epoll listens for bytes of each.
    pub(super) listening_to_client: bool,
    pub(super) listening_to_backend: bool,
    /// Another router reads the notices: epoll listens always.
    pub(super) stays: bool,
    /// Outside of this process: another one can go on with it.
    pub(super) kept: bool,
    pub(super) backend: Backend,
    pub(super) habit: Habit,
}

pub(super) type Outcome = Result<(), CloseReason>;

impl Session {
    /// Takes a session over; it will try to enrol in the kernel path if `try_kernel`.
    pub(super) fn begin(handover: Handover, try_kernel: bool) -> Self {
        let Handover {
            client,
            backend,
            pending_to_backend,
            pending_to_client,
            account,
            relayed,
            meter,
            lease,
        } = handover;
        meter.begin_relay(relayed.map(str::to_owned));
        let path = if try_kernel && relayed.is_none() {
            Path::Untried
        } else {
            Path::Relay
        };
        let mut session = Self::with(client, backend, meter, lease, path);
        session.to_backend = Pump::from_client(&pending_to_backend);
        session.to_client = Pump::from_backend(&pending_to_client);
        session.account = account;
        session
    }

    pub(super) fn with(
        client: TcpStream,
        backend: UnixStream,
        meter: Arc<Meter>,
        lease: Box<dyn Lease>,
        path: Path,
    ) -> Self {
        Self {
            client,
            backend,
            to_backend: Pump::from_client(&[]),
            to_client: Pump::from_backend(&[]),
            path,
            client_ended: false,
            backend_ended: false,
            backend_gone: false,
            linger_until: None,
            wake_at: None,
            alarm_at: None,
            drain_intervals: DrainIntervals::default(),
            account: 0,
            meter,
            lease,
        }
    }

    /// Enrols, then moves what can be moved before any event: in this order, because a backend that
    /// has been told nothing since its ReadyForQuery says nothing.
    pub(super) fn start(&mut self, loan: &mut Loan<'_>) -> Outcome {
        self.move_to_client(loan)?;
        self.try_enrol(loan)?;
        self.move_to_backend(loan)?;
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
        let ended = failed || events.contains(EpollFlags::EPOLLRDHUP);
        match side {
            Side::Client if failed && !self.to_client.is_ended() => {
                return Err(CloseReason::ClientFailed(
                    socket::pending_error(&self.client).to_string(),
                ));
            }
            Side::Client => self.client_ended |= ended,
            Side::Backend => {
                self.backend_gone |= events.contains(EpollFlags::EPOLLHUP);
                self.backend_ended |= ended;
            }
            Side::Aside => {}
        }
        if side == Side::Client {
            self.move_to_backend(loan)?;
            self.move_to_client(loan)?;
        } else {
            self.move_to_client(loan)?;
            self.move_to_backend(loan)?;
        }
        self.settle(loan)
    }

    /// Acts on a notice of the verdict: bytes come to the router.
    pub(super) fn on_notice(&mut self, loan: &mut Loan<'_>) -> Outcome {
        self.move_to_client(loan)?;
        self.move_to_backend(loan)?;
        self.settle(loan)
    }

    /// Acts on the time that `wake_at` named.
    pub(super) fn on_time(&mut self, loan: &mut Loan<'_>) -> Outcome {
        self.wake_at = None;
        if self.linger_until.is_some_and(|until| until <= loan.now) {
            return Err(self.close_reason());
        }
        self.move_to_client(loan)?;
        self.move_to_backend(loan)?;
        self.settle(loan)
    }

    /// What to wait for now.
    pub(super) fn interests(&self) -> Interests {
        let mut client = EpollFlags::empty();
        let mut backend = EpollFlags::empty();
        let mut aside = None;
        let reading_backend = match &self.path {
            Path::Kernel(kernel) => {
                let both_ways = kernel.enrolment.aside().is_some();
                // With EPOLLIN every redirected buffer would wake this thread for nothing. Each
                // edge is reported once: a socket that hung up would report it for ever.
                let quiet = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
                backend |= quiet;
                if both_ways {
                    client |= quiet;
                    aside = Some(EpollFlags::EPOLLIN | EpollFlags::EPOLLET);
                }
                // Without edges it would be reported again and again while nothing can be read on.
                if both_ways && kernel.listening_to_client || !both_ways && self.reads_client() {
                    client |= EpollFlags::EPOLLIN;
                }
                if kernel.listening_to_backend {
                    backend |= EpollFlags::EPOLLIN;
                }
                false
            }
            Path::Untried | Path::Relay => {
                if self.reads_client() {
                    client |= EpollFlags::EPOLLIN;
                }
                let reads = matches!(self.to_client.wait(), Wait::Readable | Wait::Turn);
                if reads {
                    backend |= EpollFlags::EPOLLIN;
                }
                reads
            }
        };
        if self.to_backend.wait() == Wait::Writable {
            backend |= EpollFlags::EPOLLOUT;
        }
        if self.to_client.wait() == Wait::Writable {
            client |= EpollFlags::EPOLLOUT;
        }
        // A socket that hung up reports so for ever: it is listened to no more once that is known
        // and all is read.
        let backend_done = self.backend_gone && !reading_backend;
        let client_done = self.to_backend.is_ended() && self.to_client.is_ended();
        Interests {
            client: (!client_done).then_some(client),
            backend: (!backend_done).then_some(backend),
            aside,
        }
    }

    fn reads_client(&self) -> bool {
        matches!(self.to_backend.wait(), Wait::Readable | Wait::Turn)
    }

    /// After every event: close when over.
    fn settle(&mut self, loan: &mut Loan<'_>) -> Outcome {
        self.wait_while_lagging(loan.now);
        if let (Path::Kernel(kernel), Some(access)) = (&self.path, loan.kernel.as_deref())
            && access.is_broken(&kernel.enrolment)
        {
            return Err(CloseReason::ClientFailed(
                "it sent without end while it read nothing, and what it sent had to be dropped; or \
                 a part of what it sent was missing"
                    .into(),
            ));
        }
        if !self.to_client.is_ended() {
            return Ok(());
        }
        if self.to_backend.is_ended() {
            return Err(self.close_reason());
        }
        if self.backend_gone && self.linger_until.is_none() {
            // Closing with unread input would reset the connection and could take the last message
            // with it: the client gets a moment to close by itself.
            self.to_backend.discard();
            self.linger_until = Some(loan.now + CLOSE_LINGER);
            self.listen_to_client(loan);
        }
        if self.linger_until.is_some() {
            self.wake_at = self.linger_until;
        }
        Ok(())
    }

    /// Tries to enrol, once: later it could never be certain that the backend is not just sending.
    fn try_enrol(&mut self, loan: &mut Loan<'_>) -> Outcome {
        let (Path::Untried, Some(kernel)) = (&self.path, loan.kernel.as_deref_mut()) else {
            return Ok(());
        };
        let enrolled = if self.to_client.wait() != Wait::Readable {
            Err(Refused::Failed("the client does not read".into()))
        } else if !self.to_backend.hold_back(&self.client, loan.scratch) {
            Err(Refused::Failed(
                "the client has ended, or has sent too much already".into(),
            ))
        } else {
            kernel.enrol(&self.client, &self.backend, self.account)
        };
        self.path = match enrolled {
            Ok(enrolment) => {
                self.meter.begin_kernel(enrolment.place(), kernel.flows());
                Path::Kernel(KernelSession {
                    enrolment,
                    listening_to_client: false,
                    listening_to_backend: false,
                    stays: false,
                    kept: false,
                    backend: Backend::default(),
                    habit: Habit::default(),
                })
            }
            Err(Refused::Contended) => {
                return Err(CloseReason::BackendFailed(Refused::Contended.to_string()));
            }
            Err(Refused::Failed(reason)) => {
                tracing::info!(reason, "session stays with the relay");
                self.meter.begin_relay(Some(reason));
                client_buffer::free(&self.client)
                    .map_err(|error| CloseReason::ClientFailed(error.to_string()))?;
                Path::Relay
            }
        };
        self.open_to_backend(loan)?;
        self.keep();
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
            path,
            meter,
            lease,
            ..
        } = self;
        if let (Path::Kernel(session), Some(kernel)) = (&path, kernel) {
            meter.end_kernel(kernel.end(&session.enrolment));
            // The keeper has the sockets open too.
            shut_down(&client, &backend);
            if session.enrolment.aside().is_some() {
                lease.needs_this_process(session.enrolment.place().number());
            }
        }
        drop(path);
        drop(backend);
        drop(client);
        lease.closed(reason);
    }

    /// Its place in the kernel's tables, if it has one.
    pub(super) fn place(&self) -> Option<Place> {
        match &self.path {
            Path::Kernel(kernel) => Some(kernel.enrolment.place()),
            Path::Untried | Path::Relay => None,
        }
    }

    /// Its private socket, if it has one.
    pub(super) fn aside(&self) -> Option<&UnixDatagram> {
        match &self.path {
            Path::Kernel(kernel) => kernel.enrolment.aside(),
            Path::Untried | Path::Relay => None,
        }
    }
}
