//! A session's backend-to-client flow in the kernel: from enrolment to the last byte.
//!
//! Order of enrolment: the state record in mode relay, the target, the source, proof that nothing
//! waits in the source's queue, and only then the request to redirect. The verdict program itself
//! makes the change, at the first bytes for which nothing is still on its way through the router.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use super::KernelAccess;
use super::with_causes;
use crate::config::limits::ENROL_QUEUE_CHECKS_MAX;
use crate::datapath::socket;

/// Flag of `bpf_map_update_elem`, `include/uapi/linux/bpf.h`: fail when the key is there.
const BPF_NOEXIST: u64 = 1;

/// A flow that the verdict program may redirect. Ended by [`KernelAccess::end`].
#[derive(Debug)]
pub(in crate::datapath) struct Enrolment {
    slot: u32,
    peer_cookie: u64,
    backend_cookie: u64,
    client_cookie: u64,
    /// What the client's socket had accepted when the flow began.
    accepted_before: u64,
    /// Passed bytes that the router has read, and those that it has written on.
    received: u64,
    forwarded: u64,
}

/// Why a session could not be enrolled.
#[derive(Debug, thiserror::Error)]
pub(in crate::datapath) enum Refused {
    /// The backend spoke in the middle of it, which it does unasked only when its administrator
    /// does something to it. Bytes may be lost: the session cannot go on.
    #[error("the backend spoke while the session was being enrolled")]
    Contended,
    /// The kernel said no.
    #[error("{0}")]
    Failed(String),
}

impl KernelAccess {
    /// Enrols a session whose two queues were just read to their end.
    pub(in crate::datapath) fn enrol(
        &mut self,
        client: &TcpStream,
        backend: &UnixStream,
    ) -> Result<Enrolment, Refused> {
        let peer_cookie = self.peers.of(backend).map_err(failed("sock_diag"))?;
        let backend_cookie = socket::cookie(backend).map_err(failed("SO_COOKIE"))?;
        let client_cookie = socket::cookie(client).map_err(failed("SO_COOKIE"))?;
        let accepted_before = settled_bytes(client).map_err(failed("TCP_INFO"))?;
        let slot = self
            .free
            .pop_front()
            .ok_or_else(|| Refused::Failed("no free slot".into()))?;
        let enrolment = Enrolment {
            slot,
            peer_cookie,
            backend_cookie,
            client_cookie,
            accepted_before,
            received: 0,
            forwarded: 0,
        };
        self.flows.begin(slot, peer_cookie, client_cookie);
        // Never in another session's place: its bytes would go to this client.
        if let Err(error) = self.slots.insert(peer_cookie, slot, BPF_NOEXIST) {
            self.flows.end(slot);
            self.free.push_back(slot);
            return Err(failed("SLOTS")(error));
        }
        match self.insert(&enrolment, client, backend) {
            Ok(()) => {
                self.flows.request_kernel(slot);
                Ok(enrolment)
            }
            Err(Refused::Contended) => {
                self.withdraw(&enrolment);
                Err(Refused::Contended)
            }
            Err(refused) => {
                self.end(&enrolment);
                Err(refused)
            }
        }
    }

    fn insert(
        &mut self,
        enrolment: &Enrolment,
        client: &TcpStream,
        backend: &UnixStream,
    ) -> Result<(), Refused> {
        self.targets
            .insert(enrolment.client_cookie, client.as_raw_fd(), 0)
            .map_err(failed("TARGETS"))?;
        // The backend is a target as well: what the verdict let pass waits in a queue that goes
        // with the socket's last entry in any map, so there must be another one beside the source.
        self.targets
            .insert(enrolment.backend_cookie, backend.as_raw_fd(), 0)
            .map_err(failed("TARGETS"))?;
        self.sources
            .insert(enrolment.backend_cookie, backend.as_raw_fd(), 0)
            .map_err(failed("SOURCES"))?;
        // The kernel hands over one buffer for each wake-up. One that was there before would make
        // every later one wait for its successor. One that arrives now leaves at once.
        for _ in 0..ENROL_QUEUE_CHECKS_MAX {
            if socket::unread_bytes(backend).map_err(failed("SIOCINQ"))? == 0 {
                return Ok(());
            }
        }
        Err(Refused::Contended)
    }

    /// Takes the flow out of every map, when nothing waits in the kernel any more or the session
    /// is lost anyway; how many bytes it redirected.
    pub(in crate::datapath) fn end(&mut self, enrolment: &Enrolment) -> u64 {
        let redirected = self.withdraw(enrolment);
        drop(self.targets.remove(&enrolment.backend_cookie));
        drop(self.targets.remove(&enrolment.client_cookie));
        redirected
    }

    /// Takes the client alone out of the targets: what a canary does to see what becomes of bytes
    /// that have nowhere to go.
    pub(in crate::datapath) fn lose_target(&mut self, enrolment: &Enrolment) {
        drop(self.targets.remove(&enrolment.client_cookie));
    }

    /// An AF_UNIX source may leave the map only when its peer sends nothing: the kernel drops a
    /// buffer whose verdict is under way just then (`sk_psock_verdict_recv` of `net/core/skmsg.c`
    /// finds no program, and without one the verdict is to drop). So this is for a backend that has
    /// closed, or has been idle since its first ReadyForQuery.
    ///
    /// No verdict runs for the flow any more; its sockets stay targets until they are closed, so
    /// that what the verdict let pass can still be read.
    fn withdraw(&mut self, enrolment: &Enrolment) -> u64 {
        // A missing entry is no failure: the kernel removes a socket that closes by itself, and
        // an enrolment may have failed half-way.
        drop(self.sources.remove(&enrolment.backend_cookie));
        drop(self.slots.remove(&enrolment.peer_cookie));
        let redirected = self.flows.redirected(enrolment.slot);
        self.flows.end(enrolment.slot);
        self.free.push_back(enrolment.slot);
        redirected
    }

    /// Whether the verdict redirects now.
    pub(in crate::datapath) fn redirects(&self, enrolment: &Enrolment) -> bool {
        self.flows.is_kernel(enrolment.slot)
    }

    /// How many bytes the router may read from the backend: those, and only those, that the
    /// verdict let pass. More would steal a buffer from under a verdict that is under way.
    pub(in crate::datapath) fn unreceived(&self, enrolment: &Enrolment) -> u64 {
        self.flows.passed(enrolment.slot) - enrolment.received
    }

    /// Records that passed bytes were read, and whether all of them are written.
    pub(in crate::datapath) fn record(
        &self,
        enrolment: &mut Enrolment,
        received: u64,
        all_written: bool,
    ) {
        enrolment.received += received;
        if all_written {
            enrolment.forwarded = enrolment.received;
            self.flows
                .publish_forwarded(enrolment.slot, enrolment.forwarded);
        }
    }

    /// Whether every redirected and every forwarded byte is in the client socket's own queue.
    pub(in crate::datapath) fn is_drained(
        &self,
        enrolment: &Enrolment,
        client: &TcpStream,
    ) -> io::Result<bool> {
        let expected = self.flows.redirected(enrolment.slot) + enrolment.forwarded;
        let accepted = socket::tcp_accepted_bytes(client)?;
        Ok(accepted.wrapping_sub(enrolment.accepted_before) >= expected)
    }
}

impl Enrolment {
    /// For the meter.
    pub(in crate::datapath) fn slot(&self) -> u32 {
        self.slot
    }
}

/// Bytes that the client's socket accepted so far, exact: the router alone writes to it now, and
/// an acknowledgement that arrives between the two questions shows in the first one asked again.
fn settled_bytes(client: &TcpStream) -> io::Result<u64> {
    loop {
        let before = socket::tcp_acknowledged_bytes(client)?;
        let accepted = socket::tcp_accepted_bytes(client)?;
        if socket::tcp_acknowledged_bytes(client)? == before {
            return Ok(accepted);
        }
    }
}

fn failed<E: std::error::Error>(what: &'static str) -> impl Fn(E) -> Refused {
    move |error| Refused::Failed(with_causes(what, &error))
}
