//! What a keeper process does with what it is told, and while nobody tells it anything.
//!
//! | router | sessions | kept | ends by |
//! |---|---|---|---|
//! | attached | any | everything | its farewell, its death |
//! | none | some | everything, listeners for a while; ends are passed on | a router, the last end |
//! | none | none | everything, for a while | a router, the end of the wait |
//!
//! **Invariant:** at most one router is attached, and it alone changes what is kept.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;

use super::channel;
use super::channel::Patience;
use super::channel::Received;
use super::connections::Connections;
use super::connections::Role;
use super::hangup::HangupWatch;
use super::hangup::Successor;
use super::holdings::Holdings;
use super::message::Message;
use super::message::Refusal;
use super::store::Farewell;
use super::store::Slot;
use crate::config::limits::KEEPER_DESCRIPTORS_RESERVED;
use crate::config::limits::KEEPER_DROPS_PER_MESSAGE_MAX;
use crate::config::limits::KEEPER_TAKEOVER_DEADLINE;

/// Whether the process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    GoOn,
    End,
}

/// Without a router.
#[derive(Debug)]
struct Alone {
    since: Instant,
    watch: HangupWatch,
    listeners_gone: bool,
}

/// A keeper's whole state but for its connections.
#[derive(Debug)]
pub(super) struct Keeper {
    holdings: Holdings,
    /// Slots for which there was no room, and the router does not know it yet.
    untaken: BTreeSet<Slot>,
    alone: Option<Alone>,
    return_wait: Duration,
}

/// How many descriptors may be held, so that who connects has room too. Asked for each time: others
/// can change it.
fn descriptors_max() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    limit.saturating_sub(KEEPER_DESCRIPTORS_RESERVED)
}

impl Keeper {
    pub(super) fn new(return_wait: Duration) -> Self {
        Self {
            holdings: Holdings::default(),
            untaken: BTreeSet::new(),
            alone: None,
            return_wait,
        }
    }

    /// Readable when a session has ended, while there is no router.
    pub(super) fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.alone.as_ref().map(|alone| alone.watch.descriptor())
    }

    /// When [`advance`](Self::advance) is to be called at the latest.
    pub(super) fn next(&self, connections: &Connections) -> Option<Instant> {
        let of_alone = self.alone.as_ref().map(|alone| {
            let over = alone.since + self.return_wait;
            match alone.watch.next() {
                // With sessions left and the listeners gone only an end is waited for.
                ending if alone.listeners_gone => ending,
                Some(ending) => Some(over.min(ending)),
                None => Some(over),
            }
        });
        [of_alone.flatten(), connections.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What time alone brings about.
    pub(super) fn advance(
        &mut self,
        connections: &mut Connections,
        now: Instant,
    ) -> io::Result<Act> {
        for (id, role) in connections.late(now) {
            if matches!(role, Role::Waiting { .. }) {
                connections.refuse(id, Refusal::NotLetGo, connections.router());
                connections.set_role(id, Role::Left);
            } else {
                connections.remove(id);
            }
        }
        if connections.router().is_some() {
            self.alone = None;
            return Ok(Act::GoOn);
        }
        if self.alone.is_none() {
            self.alone = Some(Alone {
                since: now,
                watch: HangupWatch::begin(&mut self.holdings)?,
                listeners_gone: false,
            });
        }
        let Some(alone) = &mut self.alone else {
            return Ok(Act::GoOn);
        };
        // While connections wait for one it is expected.
        let successor = match alone.listeners_gone {
            false => Successor::Expected,
            true => Successor::Unlikely,
        };
        alone.watch.advance(&mut self.holdings, successor)?;
        if self.holdings.slot_count() == 0 && self.holdings.global_count() == 0 {
            return Ok(Act::End);
        }
        if now.duration_since(alone.since) < self.return_wait {
            return Ok(Act::GoOn);
        }
        if !alone.listeners_gone {
            self.holdings.drop_listeners();
            alone.listeners_gone = true;
        }
        match self.holdings.slot_count() {
            0 => Ok(Act::End),
            _ => Ok(Act::GoOn),
        }
    }

    /// Takes one message of somebody who is connected.
    pub(super) fn advance_connection(&mut self, id: u64, connections: &mut Connections) -> Act {
        let (Some(socket), Some(role)) = (connections.socket(id), connections.role(id)) else {
            return Act::GoOn;
        };
        match channel::receive(socket) {
            Ok(Received::Message(message, descriptors)) => {
                let act = self.act(id, role, message, descriptors, connections);
                self.tell_untaken(connections);
                act
            }
            Ok(Received::WithoutDescriptors(message)) => {
                self.without_descriptors(message, id, connections);
                self.tell_untaken(connections);
                Act::GoOn
            }
            // What is no message comes from no router of ours: its connection is worth nothing.
            Ok(Received::Closed) | Err(_) => {
                connections.remove(id);
                self.promote(connections);
                Act::GoOn
            }
        }
    }

    fn act(
        &mut self,
        id: u64,
        role: Role,
        message: Message,
        descriptors: Vec<OwnedFd>,
        connections: &mut Connections,
    ) -> Act {
        match (role, message) {
            (_, Message::Inquire) => {
                let report = Message::Report {
                    process_id: connections
                        .router()
                        .map_or(0, |id| connections.process_id(id)),
                    globals: self.holdings.global_count(),
                    slots: self.holdings.slot_count(),
                };
                connections.tell(id, &report);
            }
            (Role::Unknown { .. }, Message::Hello { take_over }) => {
                self.hello(id, take_over, connections);
            }
            (Role::Router, Message::Goodbye(farewell)) => {
                return self.goodbye(id, farewell, connections);
            }
            (Role::Router, Message::TakeAll) => self.give(id, connections),
            (Role::Router, message) => self.change(id, message, descriptors, connections),
            _ => connections.remove(id),
        }
        Act::GoOn
    }

    fn hello(&mut self, id: u64, take_over: bool, connections: &mut Connections) {
        let in_the_way = connections.waiting().or(connections.router());
        match (connections.router(), take_over) {
            (None, _) if in_the_way.is_none() => self.welcome(id, connections),
            (Some(router), true) if connections.waiting().is_none() => {
                let until = Instant::now() + KEEPER_TAKEOVER_DEADLINE;
                connections.set_role(id, Role::Waiting { until });
                let process_id = connections.process_id(id);
                connections.tell(router, &Message::LetGo { process_id });
            }
            _ => {
                connections.refuse(id, Refusal::Busy, in_the_way);
                connections.set_role(id, Role::Left);
            }
        }
    }

    fn welcome(&mut self, id: u64, connections: &mut Connections) {
        connections.set_role(id, Role::Router);
        // What the last router was not told is nothing to this one.
        self.untaken.clear();
        self.alone = None;
        let welcome = Message::Welcome {
            globals: self.holdings.global_count(),
            slots: self.holdings.slot_count(),
        };
        connections.tell(id, &welcome);
    }

    /// Attaches who waits, if there is no router any more.
    fn promote(&mut self, connections: &mut Connections) {
        if let (None, Some(waiting)) = (connections.router(), connections.waiting()) {
            self.welcome(waiting, connections);
        }
    }

    fn goodbye(&mut self, id: u64, farewell: Farewell, connections: &mut Connections) -> Act {
        let waiting = connections.waiting();
        match (farewell, waiting) {
            (Farewell::HandingOver, None) => {
                // Whoever wanted to take over has gone: without this one nobody would serve.
                connections.refuse(id, Refusal::NobodyWaits, None);
                return Act::GoOn;
            }
            (Farewell::HandingOver, Some(_)) => connections.tell(id, &Message::Released),
            (Farewell::Ended, None) => self.holdings.clear(),
            (Farewell::Ended, Some(_)) => {
                self.holdings.clear();
                // Else it would wait for the keeper's end, and end the keeper, which is the
                // other's now.
                connections.tell(id, &Message::Released);
            }
        }
        connections.set_role(id, Role::Left);
        self.promote(connections);
        match waiting {
            Some(_) => Act::GoOn,
            None => Act::End,
        }
    }

    /// Sends everything; the other side reads at the same time.
    fn give(&self, id: u64, connections: &mut Connections) {
        let end = Message::End {
            globals: self.holdings.global_count(),
            slots: self.holdings.slot_count(),
        };
        let Some(socket) = connections.socket(id) else {
            return;
        };
        let all = self.holdings.messages().chain([(end, Vec::new())]);
        for (message, descriptors) in all {
            if channel::send(socket, &message, &descriptors, Patience::Wait).is_err() {
                // It does not read, or is gone. It learns of it by the closed connection.
                return connections.remove(id);
            }
        }
    }

    fn change(
        &mut self,
        id: u64,
        message: Message,
        mut descriptors: Vec<OwnedFd>,
        connections: &mut Connections,
    ) {
        match message {
            Message::Global(name) => {
                let kept = descriptors
                    .pop()
                    .is_some_and(|one| self.holdings.put_global(name, one));
                if !kept {
                    connections.refuse(id, Refusal::Full, None);
                }
            }
            Message::DropGlobal(name) => self.holdings.drop_global(&name),
            Message::Slots(slots) => {
                for (slot, _) in &slots {
                    self.untaken.remove(slot);
                }
                let most = descriptors_max();
                let untaken = self.holdings.put_slots(slots, descriptors, most);
                self.untaken.extend(untaken);
            }
            Message::DropSlots(slots) => {
                for slot in slots {
                    self.untaken.remove(&slot);
                    self.holdings.drop_slot(slot);
                }
            }
            _ => connections.remove(id),
        }
    }

    /// What was to be replaced is not what is there: it must not come back.
    fn without_descriptors(&mut self, message: Message, id: u64, connections: &Connections) {
        match message {
            Message::Global(name) => {
                self.holdings.drop_global(&name);
                connections.refuse(id, Refusal::Full, None);
            }
            Message::Slots(slots) => {
                for (slot, _) in slots {
                    self.holdings.drop_slot(slot);
                    self.untaken.insert(slot);
                }
            }
            _ => connections.refuse(id, Refusal::Full, None),
        }
    }

    /// Tells the router which slots there was no room for. Where its queue is full just now, it is
    /// told with the next thing that it says.
    fn tell_untaken(&mut self, connections: &Connections) {
        let slots = self.untaken.iter().copied();
        let slots: Vec<_> = slots.take(KEEPER_DROPS_PER_MESSAGE_MAX).collect();
        if let (false, Some(router)) = (slots.is_empty(), connections.router())
            && connections.try_to_tell(router, &Message::DropSlots(slots.clone()))
        {
            for slot in slots {
                self.untaken.remove(&slot);
            }
        }
    }
}
