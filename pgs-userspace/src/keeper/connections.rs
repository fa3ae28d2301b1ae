//! Who is connected to a keeper process, and as what.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use socket2::Socket;

use super::channel;
use super::channel::Patience;
use super::message::Message;
use super::message::Refusal;
use crate::config::limits::KEEPER_EXCHANGE_DEADLINE;

/// What somebody who is connected is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Has not said yet.
    Unknown { until: Instant },
    /// The router. There is at most one.
    Router,
    /// The router that is to come after it. There is at most one.
    Waiting { until: Instant },
    /// A router that has left.
    Left,
}

impl Role {
    /// When it is to be something else.
    fn until(self) -> Option<Instant> {
        match self {
            Self::Unknown { until } | Self::Waiting { until } => Some(until),
            Self::Router | Self::Left => None,
        }
    }
}

#[derive(Debug)]
struct Connection {
    socket: Socket,
    process_id: u32,
    role: Role,
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub(super) struct Connections {
    all: BTreeMap<u64, Connection>,
    next_id: u64,
}

impl Connections {
    /// Takes one more in, if it is of root or of this process's own user.
    pub(super) fn add(&mut self, socket: Socket) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        let own = nix::unistd::geteuid();
        if !peer.uid.is_root() && peer.uid.as_raw() != own.as_raw() {
            return Ok(());
        }
        let connection = Connection {
            socket,
            process_id: peer.pid.as_raw_nonzero().get().unsigned_abs(),
            role: Role::Unknown {
                until: Instant::now() + KEEPER_EXCHANGE_DEADLINE,
            },
        };
        self.all.insert(self.next_id, connection);
        self.next_id += 1;
        Ok(())
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.all.remove(&id);
    }

    /// In an order, each with its socket.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        self.all.iter().map(|(id, one)| (*id, one.socket.as_fd()))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn socket(&self, id: u64) -> Option<&Socket> {
        self.all.get(&id).map(|one| &one.socket)
    }

    pub(super) fn process_id(&self, id: u64) -> u32 {
        self.all.get(&id).map_or(0, |one| one.process_id)
    }

    pub(super) fn role(&self, id: u64) -> Option<Role> {
        self.all.get(&id).map(|one| one.role)
    }

    pub(super) fn set_role(&mut self, id: u64, role: Role) {
        if let Some(one) = self.all.get_mut(&id) {
            one.role = role;
        }
    }

    /// The attached router.
    pub(super) fn router(&self) -> Option<u64> {
        self.find(|role| role == Role::Router)
    }

    /// The router that waits to take over.
    pub(super) fn waiting(&self) -> Option<u64> {
        self.find(|role| matches!(role, Role::Waiting { .. }))
    }

    fn find(&self, wanted: impl Fn(Role) -> bool) -> Option<u64> {
        let mut all = self.all.iter();
        all.find(|(_, one)| wanted(one.role)).map(|(id, _)| *id)
    }

    /// When the next of them has waited long enough.
    pub(super) fn next(&self) -> Option<Instant> {
        self.all.values().filter_map(|one| one.role.until()).min()
    }

    /// Those who have.
    pub(super) fn late(&self, now: Instant) -> Vec<(u64, Role)> {
        let late = |role: Role| role.until().is_some_and(|until| until <= now);
        let all = self.all.iter().filter(|(_, one)| late(one.role));
        all.map(|(id, one)| (*id, one.role)).collect()
    }

    /// Says something to one of them; who does not take it, or is gone, will be seen to close.
    pub(super) fn tell(&self, id: u64, message: &Message) {
        let _taken = self.try_to_tell(id, message);
    }

    /// The same; whether it was taken.
    pub(super) fn try_to_tell(&self, id: u64, message: &Message) -> bool {
        let one = self.all.get(&id);
        one.is_some_and(|one| channel::send(&one.socket, message, &[], Patience::None).is_ok())
    }

    pub(super) fn refuse(&self, id: u64, refusal: Refusal, in_the_way: Option<u64>) {
        let process_id = in_the_way.map_or(0, |other| self.process_id(other));
        self.tell(
            id,
            &Message::Refused {
                refusal,
                process_id,
            },
        );
    }
}
