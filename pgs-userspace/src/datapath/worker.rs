//! A thread that owns a share of the sessions: one epoll, no lock, no task to wake.

mod leaving;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use nix::sys::epoll::EpollCreateFlags;
use nix::sys::epoll::EpollEvent;
use nix::sys::epoll::EpollFlags;
use nix::sys::epoll::EpollTimeout;

use leaving::Leaving;

use super::handover::CloseReason;
use super::handover::Handover;
use super::handover::Orphan;
use super::kernel::KernelAccess;
use super::kernel::Place;
use super::reach::Command;
use super::reach::Inbox;
use super::reach::Meters;
use super::session::Interests;
use super::session::Loan;
use super::session::Session;
use super::session::Side;
use super::token::GENERATION_MASK;
use super::token::WAKE_TOKEN;
use super::token::pack;
use super::token::unpack;
use crate::config::limits::EPOLL_GRANULE;
use crate::config::limits::RELAY_BUFFER_BYTES;
use crate::config::limits::WORKER_COMMANDS_AT_ONCE_MAX;
use crate::config::limits::WORKER_EVENTS_MAX;

/// The thread's own.
pub(super) struct Worker {
    epoll: Epoll,
    inbox: Inbox,
    kernel: Option<KernelAccess>,
    sessions: Vec<Entry>,
    free: Vec<u32>,
    /// Sessions by their place in the kernel's tables.
    by_place: HashMap<Place, u32>,
    live: usize,
    /// When to look at which session again; an entry whose session has changed its mind is void.
    alarms: BinaryHeap<Reverse<(Instant, u64)>>,
    scratch: Vec<u8>,
    leaving: Leaving,
    ending: bool,
}

/// A place for a session. The generation tells an event of a former one from the present one's.
#[derive(Default)]
struct Entry {
    generation: u32,
    session: Option<Box<Session>>,
    registered: Option<Interests>,
}

impl Worker {
    pub(super) fn new(inbox: Inbox, kernel: Option<KernelAccess>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wakes = EpollEvent::new(EpollFlags::EPOLLIN, WAKE_TOKEN);
        epoll.add(&inbox.wake, wakes)?;
        Ok(Self {
            epoll,
            inbox,
            kernel,
            sessions: Vec::new(),
            free: Vec::new(),
            by_place: HashMap::new(),
            live: 0,
            alarms: BinaryHeap::new(),
            scratch: vec![0; RELAY_BUFFER_BYTES],
            leaving: Leaving::default(),
            ending: false,
        })
    }

    pub(super) fn run(&mut self) {
        let mut events = vec![EpollEvent::empty(); WORKER_EVENTS_MAX];
        while !(self.ending && self.live == 0) {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    tracing::error!(%errno, "epoll_wait failed; this worker's sessions end");
                    self.end_all(&CloseReason::Shutdown);
                    return;
                }
            };
            for event in &events[..count] {
                match event.data() {
                    WAKE_TOKEN => self.take_commands(),
                    token => self.on_event(token, event.events()),
                }
            }
            self.ring_alarms();
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let Some(Reverse((at, _))) = self.alarms.peek() else {
            return EpollTimeout::NONE;
        };
        let now = Instant::now();
        if *at <= now {
            return EpollTimeout::ZERO;
        }
        // Rounded up: a wait that is a fraction short would end in a busy loop.
        let wait = at.saturating_duration_since(now) + EPOLL_GRANULE;
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    fn take_commands(&mut self) {
        // Reset before the inbox is read: a command that comes later wakes again.
        self.inbox.wake.read().ok();
        for _ in 0..WORKER_COMMANDS_AT_ONCE_MAX {
            let Ok(command) = self.inbox.commands.try_recv() else {
                return self.look_at_all();
            };
            self.take(command);
        }
        // There may be more: after what epoll and the clock say by now.
        self.inbox.wake.write(1).ok();
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Adopt(handover) => self.adopt(*handover),
            Command::Resume(orphan) => self.resume(*orphan),
            Command::Clear(place) => self.clear(place),
            Command::Reserve(places) => {
                if let Some(kernel) = self.kernel.as_mut() {
                    kernel.reserve(&places);
                }
            }
            Command::Release(done) => {
                self.release();
                // Whoever waited may have given up.
                let _gone = done.try_send(());
            }
            Command::Released => self.released(),
            Command::TakeBack => self.take_back(),
            Command::KeepAgain => {
                for entry in &mut self.sessions {
                    if let Some(session) = &mut entry.session {
                        session.keep();
                    }
                }
            }
            Command::Notice(place) => self.on_notice(place),
            Command::End(meters, reason) => self.end(&meters, &reason),
            Command::EndAll(reason) => {
                self.ending = true;
                self.end_all(&reason);
            }
        }
    }

    fn look_at_all(&mut self) {
        // Behind the commands: a session that one of them brought may be the one that it is about.
        if self.inbox.look_at_all.swap(false, SeqCst) {
            for index in 0..self.sessions.len() {
                self.notice_at(index as u32);
            }
        }
    }

    fn adopt(&mut self, handover: Handover) {
        if self.ending {
            let session = Session::begin(handover, false);
            session.close(CloseReason::Shutdown, None);
            return;
        }
        let try_kernel = self.kernel.is_some() && !self.leaving.enrols_none;
        let mut session = Box::new(Session::begin(handover, try_kernel));
        let outcome = session.start(&mut loan(&mut self.scratch, self.kernel.as_mut()));
        self.house(session, outcome);
    }

    fn resume(&mut self, orphan: Orphan) {
        let Some(kernel) = self.kernel.as_mut() else {
            return;
        };
        match Session::resume(orphan, kernel) {
            Ok(session) => {
                let mut session = Box::new(session);
                let outcome = session.on_notice(&mut loan(&mut self.scratch, Some(kernel)));
                self.house(session, outcome);
            }
            Err(lost) => lost.end(),
        }
    }

    fn house(&mut self, session: Box<Session>, outcome: Result<(), CloseReason>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(Entry::default());
            self.sessions.len() as u32 - 1
        });
        self.live += 1;
        if let Some(place) = session.place() {
            self.by_place.insert(place, index);
        }
        self.sessions[index as usize].session = Some(session);
        self.after(index, outcome);
    }

    fn on_event(&mut self, token: u64, events: EpollFlags) {
        let (index, generation, side) = unpack(token);
        let Some(entry) = self.sessions.get_mut(index as usize) else {
            return;
        };
        // An event that was reported together with the one that ended the session.
        let (true, Some(session)) = (entry.generation == generation, entry.session.as_mut()) else {
            return;
        };
        let mut loan = loan(&mut self.scratch, self.kernel.as_mut());
        let outcome = session.on_event(side, events, &mut loan);
        self.after(index, outcome);
    }

    fn on_notice(&mut self, place: Place) {
        // A session that has ended meanwhile has nothing to be told.
        if let Some(index) = self.by_place.get(&place).copied() {
            self.notice_at(index);
        }
    }

    fn notice_at(&mut self, index: u32) {
        let Some(session) = self.sessions[index as usize].session.as_mut() else {
            return;
        };
        let outcome = session.on_notice(&mut loan(&mut self.scratch, self.kernel.as_mut()));
        self.after(index, outcome);
    }

    fn ring_alarms(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, token))) = self.alarms.peek().copied() {
            if at > now {
                return;
            }
            self.alarms.pop();
            let (index, generation, _) = unpack(token);
            let entry = &mut self.sessions[index as usize];
            let (true, Some(session)) = (entry.generation == generation, entry.session.as_mut())
            else {
                continue;
            };
            if session.wake_at == Some(at) {
                let outcome = session.on_time(&mut loan(&mut self.scratch, self.kernel.as_mut()));
                self.after(index, outcome);
            }
        }
    }

    /// Closes the session, or listens to what it now waits for.
    fn after(&mut self, index: u32, outcome: Result<(), CloseReason>) {
        if let Err(reason) = outcome {
            return self.close(index, reason);
        }
        let entry = &mut self.sessions[index as usize];
        let Some(session) = entry.session.as_mut() else {
            return;
        };
        if let Some(at) = session.wake_at
            && session.alarm_at != Some(at)
        {
            session.alarm_at = Some(at);
            let token = pack(index, entry.generation, Side::Client);
            self.alarms.push(Reverse((at, token)));
        }
        let wanted = session.interests();
        let before = entry.registered.unwrap_or_default();
        if before == wanted {
            return;
        }
        let token = |side| pack(index, entry.generation, side);
        let epoll = &self.epoll;
        let (client, backend) = (before.client, before.backend);
        let (at_client, at_backend) = (token(Side::Client), token(Side::Backend));
        let result = listen(epoll, &session.client, client, wanted.client, at_client)
            .map_err(|errno| CloseReason::ClientFailed(format!("epoll_ctl: {errno}")))
            .and_then(|()| {
                listen(epoll, &session.backend, backend, wanted.backend, at_backend)
                    .map_err(|errno| CloseReason::BackendFailed(format!("epoll_ctl: {errno}")))
            })
            .and_then(|()| match session.aside() {
                Some(aside) => {
                    let token = token(Side::Aside);
                    listen(epoll, aside, before.aside, wanted.aside, token).map_err(|errno| {
                        let what = "epoll_ctl of the private socket";
                        CloseReason::BackendFailed(format!("{what}: {errno}"))
                    })
                }
                None => Ok(()),
            });
        entry.registered = Some(wanted);
        if let Err(reason) = result {
            self.close(index, reason);
        }
    }

    fn close(&mut self, index: u32, reason: CloseReason) {
        if let Some(session) = self.vacate(index) {
            session.close(reason, self.kernel.as_mut());
        }
    }

    /// Takes a session out of its place, which the next one gets.
    fn vacate(&mut self, index: u32) -> Option<Box<Session>> {
        let entry = &mut self.sessions[index as usize];
        let session = entry.session.take()?;
        entry.registered = None;
        entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(index);
        self.live -= 1;
        if let Some(place) = session.place() {
            self.by_place.remove(&place);
        }
        Some(session)
    }

    fn end(&mut self, meters: &Meters, reason: &CloseReason) {
        for index in 0..self.sessions.len() {
            let session = self.sessions[index].session.as_ref();
            if session.is_some_and(|session| meters.contain(&session.meter)) {
                self.close(index as u32, reason.clone());
            }
        }
        self.end_left(meters, reason);
    }

    fn end_all(&mut self, reason: &CloseReason) {
        for index in 0..self.sessions.len() {
            self.close(index as u32, reason.clone());
        }
    }
}

fn loan<'a>(scratch: &'a mut [u8], kernel: Option<&'a mut KernelAccess>) -> Loan<'a> {
    Loan {
        scratch,
        kernel,
        now: Instant::now(),
    }
}

/// Makes epoll report `wanted` instead of `before`.
fn listen(
    epoll: &Epoll,
    socket: impl AsFd,
    before: Option<EpollFlags>,
    wanted: Option<EpollFlags>,
    token: u64,
) -> Result<(), Errno> {
    match (before, wanted) {
        (None, None) => Ok(()),
        (None, Some(events)) => epoll.add(socket, EpollEvent::new(events, token)),
        (Some(_), None) => epoll.delete(socket),
        (Some(before), Some(events)) if before == events => Ok(()),
        (Some(_), Some(events)) => epoll.modify(socket, &mut EpollEvent::new(events, token)),
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
