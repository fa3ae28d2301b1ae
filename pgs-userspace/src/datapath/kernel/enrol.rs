//! A session's flows in the kernel: from enrolment to the last byte.
//!
//! Order of enrolment: the state records with the flow to the backend closed; every socket as a
//! target; the backend as a source, with proof that nothing waits in its queue; the client as a
//! source, and what it had sent before is judged now. The router then writes on what it holds
//! itself, and only then opens the flow to the backend.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixStream;

use super::KernelAccess;
use super::flows::KernelBytes;
use super::flows::Route;
use super::place::Place;
use super::progress::Progress;
use super::refused::Refused;
use super::refused::failed;
use super::step::Step;
use crate::config::limits::ACCEPTED_LOOKS_MAX;
use crate::config::limits::ASIDE_RECEIVE_BUFFER_BYTES;
use crate::config::limits::ENROL_QUEUE_CHECKS_MAX;
use crate::datapath::client_buffer;
use crate::datapath::direction::Direction;
use crate::datapath::socket;

/// Flag of `bpf_map_update_elem`, `include/uapi/linux/bpf.h`: fail when the key is there.
pub(super) const BPF_NOEXIST: u64 = 1;

/// Two flows that the verdict program may redirect. Ended by [`KernelAccess::end`].
#[derive(Debug)]
pub(in crate::datapath) struct Enrolment {
    pub(super) place: Place,
    pub(super) cookies: Cookies,
    /// The private socket by which a backend's bytes come to the router; `None` where only the
    /// flow to the client is redirected, and always.
    aside: Option<UnixDatagram>,
    /// What the client's socket had accepted when the flows began.
    pub(super) accepted_before: u64,
    to_backend: Progress,
    to_client: Progress,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cookies {
    /// The backend's own end, which is what the verdict sees.
    peer: u64,
    pub(super) backend: u64,
    client: u64,
    /// 0 where there is none.
    aside: u64,
}

impl KernelAccess {
    /// Enrols a session whose two queues were just read to their end. Nothing is redirected to the
    /// backend before [`Self::open`].
    pub(in crate::datapath) fn enrol(
        &mut self,
        client: &TcpStream,
        backend: &UnixStream,
        account: u32,
    ) -> Result<Enrolment, Refused> {
        self.passes(Step::Read);
        let enrolment = self.prepare(client, backend)?;
        self.begin_flows(&enrolment, account);
        self.passes(Step::Records);
        // Never in another session's place: its bytes would go to this client.
        if let Err(error) = self.lead_to_flows(&enrolment) {
            self.end(&enrolment);
            return Err(error);
        }
        self.passes(Step::Indexes);
        match self.insert(&enrolment, client, backend) {
            Ok(()) => Ok(enrolment),
            Err(Refused::Contended) => {
                self.withdraw(&enrolment);
                Err(Refused::Contended)
            }
            Err(refused) if self.has_judged(&enrolment, backend) => {
                tracing::debug!(%refused, "a backend spoke while its session was not enrolled");
                self.withdraw(&enrolment);
                Err(Refused::Contended)
            }
            Err(refused) => {
                self.end(&enrolment);
                Err(refused)
            }
        }
    }

    /// Goes on with flows that another router has left.
    pub(in crate::datapath) fn resume(
        &mut self,
        place: Place,
        client: &TcpStream,
        backend: &UnixStream,
        aside: UnixDatagram,
    ) -> Result<Enrolment, Refused> {
        let (to_backend, to_client) = (Direction::ToBackend, Direction::ToClient);
        let cookies = Cookies {
            peer: self.flows.source(place, to_client),
            backend: socket::cookie(backend).map_err(failed("SO_COOKIE"))?,
            client: socket::cookie(client).map_err(failed("SO_COOKIE"))?,
            aside: socket::cookie(&aside).map_err(failed("SO_COOKIE"))?,
        };
        let known = cookies.peer != 0
            && self.flows.source(place, to_backend) == cookies.client
            && self.flows.targets(place, to_backend).0 == cookies.backend
            && self.flows.targets(place, to_client) == (cookies.client, cookies.aside);
        if !known {
            return Err(Refused::Failed("its flows are another session's".into()));
        }
        let progress = |direction| {
            let forwarded = self.flows.forwarded(place, direction).ok_or_else(|| {
                Refused::Failed("the last router held bytes of it when it ended".into())
            })?;
            Ok(Progress {
                received: forwarded,
                forwarded,
                // Not known: the probe tells.
                drained: u64::MAX,
            })
        };
        let (to_backend, to_client) = (progress(to_backend)?, progress(to_client)?);
        for direction in Direction::BOTH {
            self.flows.set_listening(place, direction, false);
        }
        Ok(Enrolment {
            place,
            cookies,
            aside: Some(aside),
            accepted_before: 0,
            to_backend,
            to_client,
        })
    }

    /// Takes flows that nobody goes on with out of the tables. Their sockets are closed, or their
    /// session is lost. A place that is free already has nothing to be taken out.
    pub(in crate::datapath) fn clear(&mut self, place: Place) {
        if self.free.contains(&place) {
            return;
        }
        for direction in Direction::BOTH {
            let source = self.flows.source(place, direction);
            if source != 0 {
                drop(self.indexes.remove(&source));
            }
            for key in <[u64; 2]>::from(self.flows.targets(place, direction)) {
                drop(self.sources.remove(&key));
                drop(self.sockets.remove(&key));
            }
            self.flows.end(place, direction);
        }
        self.free.push_back(place);
    }

    /// Everything that can fail before any map is touched.
    fn prepare(&mut self, client: &TcpStream, backend: &UnixStream) -> Result<Enrolment, Refused> {
        let aside = self
            .probe
            .is_some()
            .then(aside_socket)
            .transpose()
            .map_err(failed("socketpair(AF_UNIX, SOCK_DGRAM)"))?;
        client_buffer::bind(client).map_err(failed("setsockopt"))?;
        let cookies = Cookies {
            peer: self.peers.of(backend).map_err(failed("sock_diag"))?,
            backend: socket::cookie(backend).map_err(failed("SO_COOKIE"))?,
            client: socket::cookie(client).map_err(failed("SO_COOKIE"))?,
            aside: aside
                .as_ref()
                .map_or(Ok(0), socket::cookie)
                .map_err(failed("SO_COOKIE"))?,
        };
        let accepted_before = settled_bytes(client).map_err(failed("TCP_INFO"))?;
        let place = self
            .free
            .pop_front()
            .ok_or_else(|| Refused::Failed("no free place".into()))?;
        Ok(Enrolment {
            place,
            cookies,
            aside,
            accepted_before,
            to_backend: Progress::default(),
            to_client: Progress::default(),
        })
    }

    fn begin_flows(&self, enrolment: &Enrolment, account: u32) {
        let Cookies {
            peer,
            backend,
            client,
            aside,
        } = enrolment.cookies;
        let to_client = Route {
            source: peer,
            target: client,
            aside,
            account,
        };
        let to_backend = Route {
            source: client,
            target: backend,
            aside: 0,
            account,
        };
        self.flows
            .begin(enrolment.place, Direction::ToClient, to_client);
        self.flows
            .begin(enrolment.place, Direction::ToBackend, to_backend);
        self.flows.open(enrolment.place, Direction::ToClient);
    }

    fn lead_to_flows(&mut self, enrolment: &Enrolment) -> Result<(), Refused> {
        let place = enrolment.place;
        let to_client = place.flow(Direction::ToClient);
        self.indexes
            .insert(enrolment.cookies.peer, to_client, BPF_NOEXIST)
            .map_err(failed("INDEXES"))?;
        if enrolment.aside.is_some() {
            let to_backend = place.flow(Direction::ToBackend);
            self.indexes
                .insert(enrolment.cookies.client, to_backend, BPF_NOEXIST)
                .map_err(failed("INDEXES"))?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        enrolment: &Enrolment,
        client: &TcpStream,
        backend: &UnixStream,
    ) -> Result<(), Refused> {
        let cookies = enrolment.cookies;
        for (key, socket) in [
            (cookies.client, client.as_raw_fd()),
            (cookies.backend, backend.as_raw_fd()),
        ]
        .into_iter()
        .chain(
            enrolment
                .aside
                .iter()
                .map(|aside| (cookies.aside, aside.as_raw_fd())),
        ) {
            self.sockets
                .insert(key, socket, 0)
                .map_err(failed("SOCKETS"))?;
        }
        self.passes(Step::Targets);
        self.sources
            .insert(cookies.backend, backend.as_raw_fd(), 0)
            .map_err(failed("SOURCES, the backend"))?;
        self.passes(Step::BackendSource);
        if !is_silent(backend).map_err(failed("SIOCINQ"))? {
            return Err(Refused::Contended);
        }
        self.passes(Step::Silence);
        if enrolment.aside.is_none() {
            return Ok(());
        }
        self.sources
            .insert(cookies.client, client.as_raw_fd(), 0)
            .map_err(failed("SOURCES, the client"))?;
        self.passes(Step::ClientSource);
        // What the client had sent before waits in its queue, and this has it judged.
        socket::set_receive_low_water(client, 1).map_err(failed("SO_RCVLOWAT"))?;
        self.passes(Step::Judged);
        Ok(())
    }

    /// Lets the verdict redirect to the backend: the router holds nothing of that direction that
    /// the program does not know of.
    pub(in crate::datapath) fn open(&self, enrolment: &Enrolment) {
        self.passes(Step::Written);
        self.flows.open(enrolment.place, Direction::ToBackend);
        self.passes(Step::Open);
    }

    /// Whether [`Self::open`] was called.
    pub(in crate::datapath) fn is_open(&self, enrolment: &Enrolment, direction: Direction) -> bool {
        self.flows.is_open(enrolment.place, direction)
    }

    /// Takes the flows out of every map, when nothing waits in the kernel any more or the session
    /// is lost anyway; how many bytes they redirected.
    ///
    /// An AF_UNIX source may leave the map only when its peer sends nothing or its bytes no longer
    /// matter: the kernel drops a buffer whose verdict is under way just then
    /// (`sk_psock_verdict_recv` of `net/core/skmsg.c` finds no program, and without one the
    /// verdict is to drop).
    pub(in crate::datapath) fn end(&mut self, enrolment: &Enrolment) -> KernelBytes {
        let bytes = self.withdraw(enrolment);
        let cookies = enrolment.cookies;
        for key in [cookies.backend, cookies.client, cookies.aside] {
            // A missing entry is no failure: the kernel removes a socket that closes by itself, and
            // an enrolment may have failed half-way.
            drop(self.sockets.remove(&key));
        }
        bytes
    }

    /// Takes the client alone out of the targets: what a canary does to see what becomes of bytes
    /// that have nowhere to go.
    pub(in crate::datapath) fn lose_target(&mut self, enrolment: &Enrolment) {
        drop(self.sockets.remove(&enrolment.cookies.client));
    }

    /// No verdict runs for the flows any more; the sockets stay targets until they are closed, so
    /// that what was diverted can still be read.
    fn withdraw(&mut self, enrolment: &Enrolment) -> KernelBytes {
        let cookies = enrolment.cookies;
        for key in [cookies.backend, cookies.client] {
            drop(self.sources.remove(&key));
        }
        for key in [cookies.peer, cookies.client] {
            drop(self.indexes.remove(&key));
        }
        let bytes = self.flows.bytes(enrolment.place);
        for direction in Direction::BOTH {
            self.flows.end(enrolment.place, direction);
        }
        self.free.push_back(enrolment.place);
        bytes
    }
}

impl Enrolment {
    /// Where its flows are.
    pub(in crate::datapath) fn place(&self) -> Place {
        self.place
    }

    /// The private socket of the flow to the client; `None` where only that is redirected.
    pub(in crate::datapath) fn aside(&self) -> Option<&UnixDatagram> {
        self.aside.as_ref()
    }

    pub(super) fn progress(&self, direction: Direction) -> &Progress {
        match direction {
            Direction::ToBackend => &self.to_backend,
            Direction::ToClient => &self.to_client,
        }
    }

    pub(super) fn progress_mut(&mut self, direction: Direction) -> &mut Progress {
        match direction {
            Direction::ToBackend => &mut self.to_backend,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// A socket that nobody can send to: what it receives is redirected to it. Its other end is closed
/// at once, which a datagram socket does not mind; it was there because the kernel redirects to
/// connected sockets only (`sock_map_redirect_allowed` of `net/core/sock_map.c`).
fn aside_socket() -> io::Result<UnixDatagram> {
    let (socket, _closed) = UnixDatagram::pair()?;
    socket.set_nonblocking(true)?;
    socket::set_receive_buffer(&socket, ASIDE_RECEIVE_BUFFER_BYTES)?;
    Ok(socket)
}

/// Whether nothing waits in a source's queue.
///
/// The kernel hands over one buffer for each wake-up. One that was there before would make every
/// later one wait for its successor. One that arrives now leaves at once.
pub(super) fn is_silent(backend: &UnixStream) -> io::Result<bool> {
    for _ in 0..ENROL_QUEUE_CHECKS_MAX {
        if socket::unread_bytes(backend.as_fd())? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes that the client's socket accepted so far, exact: the router alone writes to it now, and
/// an acknowledgement that arrives between the two questions shows in the first one asked again.
fn settled_bytes(client: &TcpStream) -> io::Result<u64> {
    for _ in 0..ACCEPTED_LOOKS_MAX {
        let before = socket::tcp_acknowledged_bytes(client)?;
        let accepted = socket::tcp_accepted_bytes(client)?;
        if socket::tcp_acknowledged_bytes(client)? == before {
            return Ok(accepted);
        }
    }
    Err(io::Error::other("the client acknowledges without a pause"))
}

#[cfg(test)]
#[path = "enrol_tests.rs"]
mod tests;
