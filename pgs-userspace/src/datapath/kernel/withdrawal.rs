//! A backend's socket leaves the verdict for a large turn, and comes back.
//!
//! Leaving is safe only while the backend cannot be sending: the kernel drops a buffer whose
//! verdict is just beginning. It is certain where its send buffer is full, which it stays as long
//! as nothing is read from the full private socket, and where it was seen asleep afterwards, with
//! no verdict in between: then it had no buffer under way, and can make none.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use aya::maps::MapError;
use pgs_common::flow::ASLEEP;
use pgs_common::flow::FULL;
use pgs_common::flow::NATIVE;
use pgs_common::flow::RELAY;
use pgs_common::flow::RETURNING;

use super::KernelAccess;
use super::enrol::BPF_NOEXIST;
use super::enrol::Enrolment;
use super::enrol::is_silent;
use super::refused::Refused;
use super::refused::failed;
use super::step::Step;
use crate::datapath::direction::Direction;
use crate::datapath::socket;

/// What a backend does whose private socket is left unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::datapath) enum Pressure {
    /// It has no buffer under way and can make none, until something is read.
    Blocked,
    /// It sends, or is about to be blocked.
    Rising,
    /// It waits for something else, and would not fill the socket.
    None,
}

/// How a backend stands to the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::datapath) enum Standing {
    /// Its bytes pass the verdict.
    Judged,
    /// They do not.
    Native,
    /// They do again; some may have come too early for that.
    Returning,
}

impl KernelAccess {
    /// What the backend does, with the private socket unread.
    pub(in crate::datapath) fn pressure(&mut self, enrolment: &Enrolment) -> io::Result<Pressure> {
        let Some(aside) = enrolment.aside() else {
            return Ok(Pressure::None);
        };
        // In this order: when nothing leaves the send buffer any more, and it is full, then nothing
        // comes to it; and only then being asleep says something. A buffer that was under way, and
        // by which it was full, would have been judged in between: perhaps to go another way.
        let judged = self.flows.judged(enrolment.place, Direction::ToClient);
        let aside_is_full = socket::is_receive_buffer_full(aside)?;
        let sender = self.ask_about_sender(enrolment)?;
        let unchanged = self.flows.judged(enrolment.place, Direction::ToClient) == judged;
        Ok(match (sender & ASLEEP != 0, sender & FULL != 0) {
            (true, true) if aside_is_full && unchanged => Pressure::Blocked,
            (true, false) => Pressure::None,
            _ => Pressure::Rising,
        })
    }

    /// Whether the backend waits for something.
    pub(in crate::datapath) fn is_asleep(&mut self, enrolment: &Enrolment) -> io::Result<bool> {
        Ok(self.ask_about_sender(enrolment)? & ASLEEP != 0)
    }

    fn ask_about_sender(&mut self, enrolment: &Enrolment) -> io::Result<u32> {
        match &mut self.probe {
            Some(probe) => probe.sender(&self.flows, enrolment.place),
            None => Ok(0),
        }
    }

    /// Takes a blocked backend out of the verdict. From here on what the client sends comes to the
    /// router, which so learns of the next turn.
    pub(in crate::datapath) fn withdraw_backend(
        &mut self,
        enrolment: &Enrolment,
    ) -> Result<(), Refused> {
        let place = enrolment.place;
        // Written first: a router that goes on from here does the rest, and before that reads
        // nothing from the private socket.
        self.flows.set_mode(place, Direction::ToClient, NATIVE);
        self.passes(Step::Withdrawing);
        self.remove_backend(enrolment)?;
        self.passes(Step::Withdrawn);
        self.flows.set_mode(place, Direction::ToBackend, RELAY);
        Ok(())
    }

    fn remove_backend(&mut self, enrolment: &Enrolment) -> Result<(), Refused> {
        match self.sources.remove(&enrolment.cookies.backend) {
            // The kernel itself takes out a socket that closes.
            Ok(()) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            Err(error) => Err(failed("SOURCES, the backend")(error)),
        }
    }

    /// Makes the backend a source again. False where buffers had come before it was one: each of
    /// them waits for its successor, and that has to be seen to.
    pub(in crate::datapath) fn return_backend(
        &mut self,
        enrolment: &Enrolment,
        backend: &UnixStream,
    ) -> Result<bool, Refused> {
        let place = enrolment.place;
        self.flows.set_mode(place, Direction::ToClient, RETURNING);
        self.passes(Step::Returning);
        if let Err(error) = self.insert_backend(enrolment, backend) {
            self.flows.set_mode(place, Direction::ToClient, NATIVE);
            return Err(failed("SOURCES, the backend again")(error));
        }
        self.passes(Step::Returned);
        // What it sent meanwhile has ended its client's turn, and no verdict has seen it: the next
        // one would come to a router, which may not be there.
        self.flows.begin_turn(place, Direction::ToBackend);
        self.is_back(enrolment, backend)
    }

    /// Whether a backend has spoken to the verdict of an enrolment that failed behind that, seen
    /// when no verdict runs for it any more. The relay could only go on behind a hole.
    pub(super) fn has_judged(&mut self, enrolment: &Enrolment, backend: &UnixStream) -> bool {
        drop(self.sources.remove(&enrolment.cookies.backend));
        let judged = self.flows.judged(enrolment.place, Direction::ToClient);
        let dropped = socket::dropped_buffers(backend);
        judged != 0 || !matches!(dropped, Ok(0))
    }

    /// Whether the kernel has taken a backend out of every map by itself, and purged what came by
    /// the source and was not read: `unix_shutdown` of `net/unix/af_unix.c` has it do so where the
    /// other end calls `shutdown`. Closing does not.
    pub(in crate::datapath) fn was_taken_out(
        &mut self,
        enrolment: &Enrolment,
        backend: &UnixStream,
    ) -> Result<bool, Refused> {
        let key = enrolment.cookies.backend;
        // As long as the session lives it is a target, whether or not it is a source.
        match self.sockets.insert(key, backend.as_raw_fd(), BPF_NOEXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(false)
            }
            Err(error) => Err(failed("SOCKETS, the backend")(error)),
        }
    }

    fn insert_backend(
        &mut self,
        enrolment: &Enrolment,
        backend: &UnixStream,
    ) -> Result<(), MapError> {
        let key = enrolment.cookies.backend;
        self.sources.insert(key, backend.as_raw_fd(), BPF_NOEXIST)
    }

    fn is_back(&self, enrolment: &Enrolment, backend: &UnixStream) -> Result<bool, Refused> {
        let silent = is_silent(backend).map_err(failed("SIOCINQ"))?;
        if silent {
            self.has_returned(enrolment);
        }
        Ok(silent)
    }

    /// Lets the verdict redirect to the client again: no buffer waits for its successor.
    pub(in crate::datapath) fn has_returned(&self, enrolment: &Enrolment) {
        self.flows.open(enrolment.place, Direction::ToClient);
    }

    /// How the backend of a session stands that another router has left.
    pub(in crate::datapath) fn resume_standing(
        &mut self,
        enrolment: &Enrolment,
        backend: &UnixStream,
    ) -> Result<Standing, Refused> {
        match self.flows.mode(enrolment.place, Direction::ToClient) {
            NATIVE => {
                // Nothing was read since it was found blocked, or it is no source any more.
                self.withdraw_backend(enrolment)?;
                Ok(Standing::Native)
            }
            RETURNING => {
                match self.insert_backend(enrolment, backend) {
                    Ok(()) => {}
                    // It has a verdict: the router before this one came so far.
                    Err(MapError::SyscallError(error))
                        if error.io_error.kind() == io::ErrorKind::ResourceBusy => {}
                    Err(error) => return Err(failed("SOURCES, the backend again")(error)),
                }
                match self.is_back(enrolment, backend)? {
                    true => Ok(Standing::Judged),
                    false => Ok(Standing::Returning),
                }
            }
            _ => Ok(Standing::Judged),
        }
    }
}
