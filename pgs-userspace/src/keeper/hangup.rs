//! Ends sessions while there is no router: the end of one side is passed on to the other.
//!
//! Bytes travel inside the kernel, ends do not. What is under way when one side ends must arrive
//! before the other side is told, so there is a grace, and a look at what its peer has not
//! acknowledged yet. What waits for a router comes before the end as well, as long as one is
//! expected.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::epoll::Epoll;
use nix::sys::epoll::EpollCreateFlags;
use nix::sys::epoll::EpollEvent;
use nix::sys::epoll::EpollFlags;
use nix::sys::epoll::EpollTimeout;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use socket2::SockRef;

use super::holdings::Holdings;
use super::store::Slot;
use super::store::SlotDescriptors;
use crate::config::limits::CLOSE_LINGER;
use crate::config::limits::KEEPER_EVENTS_MAX;
use crate::config::limits::KEEPER_HANGUP_GRACE;
use crate::config::limits::KEEPER_UNSENT_DEADLINE;
use crate::datapath::unread::has_unread;
use crate::datapath::unsent::unsent;

/// How far a side has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    /// It sends no more.
    Sending,
    /// It neither sends nor takes anything.
    Wholly,
}

/// Whether a slot is still of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    Close,
}

/// Whether a router is to come that reads what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Successor {
    Expected,
    /// It has been away for so long that there may never be one.
    Unlikely,
}

/// A side that has ended, and how far the other one knows.
#[derive(Debug)]
struct Ending {
    noticed_at: Instant,
    /// What the other side's peer had not acknowledged at the last look, and since when.
    unsent: u64,
    unsent_since: Instant,
    told: Option<(Ended, Instant)>,
}

impl Ending {
    fn new(now: Instant) -> Self {
        Self {
            noticed_at: now,
            unsent: u64::MAX,
            unsent_since: now,
            told: None,
        }
    }

    /// Tells the other side once everything before has arrived. `waits`: some of it has to be
    /// moved by a router yet.
    fn pass_on(
        &mut self,
        ended: Ended,
        target: &OwnedFd,
        how: Shutdown,
        waits: bool,
        now: Instant,
    ) {
        if now.duration_since(self.noticed_at) < KEEPER_HANGUP_GRACE {
            return;
        }
        let reachable = ended_side(target) != Some(Ended::Wholly);
        if waits && reachable && how == Shutdown::Write {
            return;
        }
        let left = unsent(target).unwrap_or(0);
        if left < self.unsent {
            (self.unsent, self.unsent_since) = (left, now);
        }
        let patient = now.duration_since(self.unsent_since) < KEEPER_UNSENT_DEADLINE;
        // What is dead takes nothing more; and a client that is gone has nothing left to deliver
        // that its backend could answer.
        if left > 0 && patient && reachable && how == Shutdown::Write {
            return;
        }
        // It can have ended by itself meanwhile, which is what the call is for.
        drop(SockRef::from(target).shutdown(how));
        self.told = Some((ended, now));
    }
}

/// Both sides of a slot of which one has ended.
#[derive(Debug, Default)]
struct Endings {
    client: Option<Ending>,
    backend: Option<Ending>,
}

impl Endings {
    fn step(
        &mut self,
        held: &SlotDescriptors<OwnedFd>,
        successor: Successor,
        now: Instant,
    ) -> Verdict {
        let waits = |sockets: &[&Option<OwnedFd>]| {
            successor == Successor::Expected && sockets.iter().any(|socket| is_unread(socket))
        };
        let client_ended = held.client.as_ref().and_then(ended_side);
        let backend_ended = held.backend.as_ref().and_then(ended_side);
        if let Some(ended) = client_ended {
            let ending = self.client.get_or_insert_with(|| Ending::new(now));
            // The backend of a client that is gone must not wait for it to take its results.
            let how = match ended {
                Ended::Sending => Shutdown::Write,
                Ended::Wholly => Shutdown::Both,
            };
            let Some(backend) = &held.backend else {
                return Verdict::Close;
            };
            if ending.told.is_none_or(|(told, _)| told < ended) {
                ending.pass_on(ended, backend, how, waits(&[&held.client]), now);
            }
            if ending.told.is_some_and(|(told, _)| told == Ended::Wholly) {
                return Verdict::Close;
            }
        }
        if let Some(ended) = backend_ended {
            let ending = self.backend.get_or_insert_with(|| Ending::new(now));
            let Some(client) = &held.client else {
                return Verdict::Close;
            };
            if ending.told.is_none() {
                let waits = waits(&[&held.backend, &held.aside]);
                ending.pass_on(ended, client, Shutdown::Write, waits, now);
            }
            let told_at = ending.told.map(|(_, at)| at);
            let lingered = told_at.is_some_and(|at| now.duration_since(at) >= CLOSE_LINGER);
            if lingered || told_at.is_some() && client_ended.is_some() {
                return Verdict::Close;
            }
        }
        Verdict::Keep
    }
}

/// Watches every slot for its end.
#[derive(Debug)]
pub(super) struct HangupWatch {
    epoll: Epoll,
    endings: HashMap<Slot, Endings>,
    next: Option<Instant>,
}

impl HangupWatch {
    /// Begins with all that is held. A slot whose end could not be seen ends here and now.
    pub(super) fn begin(holdings: &mut Holdings) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut unseen = Vec::new();
        for (slot, held) in holdings.slots() {
            for socket in [&held.client, &held.backend].into_iter().flatten() {
                // Not EPOLLIN: it would wake this process for every packet that the kernel
                // redirects. HUP and ERR come by themselves.
                let flags = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
                let event = EpollEvent::new(flags, slot.number().into());
                if epoll.add(socket, event).is_err() {
                    unseen.push(slot);
                }
            }
        }
        unseen.into_iter().for_each(|slot| holdings.drop_slot(slot));
        Ok(Self {
            epoll,
            endings: HashMap::new(),
            next: None,
        })
    }

    /// Readable when something has ended.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// When [`advance`](Self::advance) is to be called at the latest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Looks at what has ended, and does what is due.
    pub(super) fn advance(
        &mut self,
        holdings: &mut Holdings,
        successor: Successor,
    ) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); KEEPER_EVENTS_MAX];
        loop {
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
            for event in &events[..count] {
                if let Some(slot) = u32::try_from(event.data()).ok().and_then(Slot::new) {
                    self.endings.entry(slot).or_default();
                }
            }
            if count < events.len() {
                break;
            }
        }
        let now = Instant::now();
        self.endings.retain(|slot, endings| {
            let verdict = match holdings.slot(*slot) {
                Some(held) => endings.step(held, successor, now),
                None => return false,
            };
            if verdict == Verdict::Close {
                holdings.drop_slot(*slot);
            }
            verdict == Verdict::Keep
        });
        self.next = (!self.endings.is_empty()).then(|| now + KEEPER_HANGUP_GRACE);
        Ok(())
    }
}

/// Whether bytes wait in it. One that cannot be asked makes nobody wait.
fn is_unread(socket: &Option<OwnedFd>) -> bool {
    let socket = socket.as_ref();
    socket.is_some_and(|socket| has_unread(socket).unwrap_or(false))
}

/// How far a socket's peer has ended, if it has.
fn ended_side(socket: &OwnedFd) -> Option<Ended> {
    let mut look = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut look, Some(&Timespec::default())).ok()?;
    let flags = look[0].revents();
    if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
        return Some(Ended::Wholly);
    }
    flags.contains(PollFlags::RDHUP).then_some(Ended::Sending)
}
