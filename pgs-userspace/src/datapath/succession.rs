//! Sessions that pass from one router to the next: what is kept of them, how one is taken over, and
//! how one is left.

use std::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use super::direction::Direction;
use super::handover::CloseReason;
use super::handover::Lease;
use super::handover::Orphan;
use super::handover::SessionSockets;
use super::kernel::KernelAccess;
use super::kernel::Place;
use super::kernel::Unreceived;
use super::session::KernelSession;
use super::session::Path;
use super::session::Session;

/// A session that cannot be gone on with.
#[derive(Debug)]
pub(super) struct Lost {
    place: u32,
    client: TcpStream,
    backend: UnixStream,
    lease: Box<dyn Lease>,
    why: String,
}

impl Lost {
    /// Ends it: the keeper has its sockets open too, so that closing would not do.
    pub(super) fn end(self) {
        self.lease.needs_this_process(self.place);
        shut_down(&self.client, &self.backend);
        self.lease.closed(CloseReason::Orphaned(self.why));
    }
}

impl Session {
    /// Goes on with a session that another router has left.
    pub(super) fn resume(orphan: Orphan, kernel: &mut KernelAccess) -> Result<Self, Lost> {
        let Orphan {
            place,
            client,
            backend,
            aside,
            meter,
            lease,
        } = orphan;
        let place = Place::from_number(place);
        match kernel.resume(place, &client, &backend, aside) {
            Ok(enrolment) => Ok(Self::with(
                client,
                backend,
                meter,
                lease,
                Path::Kernel(KernelSession {
                    enrolment,
                    listening_to_client: false,
                    listening_to_backend: false,
                    stays: false,
                }),
            )),
            Err(refused) => {
                kernel.clear(place);
                Err(Lost {
                    place: place.number(),
                    client,
                    backend,
                    lease,
                    why: refused.to_string(),
                })
            }
        }
    }

    /// Leaves the session to another router, where all its bytes are the kernel's; else it stays,
    /// and needs no notices from here on, since those are the other's.
    pub(super) fn release(mut self: Box<Self>, kernel: &KernelAccess) -> Option<Box<Self>> {
        let flushed = self.to_client.is_flushed() && self.to_backend.is_flushed();
        match &mut self.path {
            Path::Kernel(session)
                if flushed
                    && session.enrolment.aside().is_some()
                    && kernel.is_open(&session.enrolment, Direction::ToBackend)
                    && Direction::BOTH.iter().all(|direction| {
                        kernel.unreceived(&session.enrolment, *direction) == Unreceived::Nothing
                    }) =>
            {
                for direction in Direction::BOTH {
                    kernel.set_listening(&session.enrolment, direction, false);
                }
                self.lease.released();
                None
            }
            Path::Kernel(session) => {
                session.stays = true;
                session.listening_to_client = true;
                session.listening_to_backend = true;
                for direction in Direction::BOTH {
                    kernel.set_listening(&session.enrolment, direction, true);
                }
                self.lease.stays(session.enrolment.place().number());
                Some(self)
            }
            Path::Untried | Path::Relay => Some(self),
        }
    }

    /// Has the session kept, if it can go on without this process.
    pub(super) fn keep(&self) {
        if let (Path::Kernel(session), Some(aside)) = (&self.path, self.aside())
            && !session.stays
        {
            let sockets = SessionSockets {
                client: self.client.as_fd(),
                backend: self.backend.as_fd(),
                aside: aside.as_fd(),
            };
            self.lease
                .goes_on_alone(session.enrolment.place().number(), sockets);
        }
    }
}

/// Ends both connections, whoever else has them open.
pub(super) fn shut_down(client: &TcpStream, backend: &UnixStream) {
    // Each may have ended by itself.
    drop(client.shutdown(Shutdown::Both));
    drop(backend.shutdown(Shutdown::Both));
}
