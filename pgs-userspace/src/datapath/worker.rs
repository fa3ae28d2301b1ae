//! A thread that owns a share of the sessions: one epoll, no lock, no task to wake.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::TrySendError;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use nix::sys::epoll::EpollCreateFlags;
use nix::sys::epoll::EpollEvent;
use nix::sys::epoll::EpollFlags;
use nix::sys::epoll::EpollTimeout;
use nix::sys::eventfd::EfdFlags;
use nix::sys::eventfd::EventFd;

use super::handover::CloseReason;
use super::handover::Handover;
use super::kernel::KernelAccess;
use super::meter::Meter;
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
use crate::config::limits::WORKER_COMMANDS_MAX;
use crate::config::limits::WORKER_EVENTS_MAX;
use crate::privileges;

/// What a worker is told.
#[derive(Debug)]
enum Command {
    Adopt(Box<Handover>),
    End(Arc<Meter>, CloseReason),
    EndAll(CloseReason),
}

/// The other threads' end of a worker.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    commands: SyncSender<Command>,
    wake: Arc<EventFd>,
    thread: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl WorkerHandle {
    /// Starts a worker; `kernel` is `None` when it is to relay everything.
    pub(super) fn start(index: usize, kernel: Option<KernelAccess>) -> io::Result<Self> {
        let (commands, inbox) = sync_channel(WORKER_COMMANDS_MAX);
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let wake = Arc::new(wake);
        let mut worker = Worker::new(inbox, Arc::clone(&wake), kernel)?;
        let thread = std::thread::Builder::new()
            .name(format!("data-path-{index}"))
            .spawn(move || {
                privileges::relinquish_or_log();
                worker.run();
            })?;
        Ok(Self {
            commands,
            wake,
            thread: std::sync::Mutex::new(Some(thread)),
        })
    }

    /// Gives a session to the worker, or gives it back when too much waits already.
    pub(super) fn adopt(&self, handover: Handover) -> Result<(), Box<Handover>> {
        match self.commands.try_send(Command::Adopt(Box::new(handover))) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => match command
            {
                Command::Adopt(handover) => Err(handover),
                Command::End(..) | Command::EndAll(_) => Ok(()),
            },
        }
    }

    /// Ends the session that `meter` counts, if it is this worker's. False when too much waits.
    pub(super) fn end(&self, meter: &Arc<Meter>, reason: CloseReason) -> bool {
        self.tell(Command::End(Arc::clone(meter), reason))
    }

    /// Ends every session of this worker, and the worker with the last one.
    pub(super) fn end_all(&self, reason: CloseReason) -> bool {
        // Waits for its place: without it the worker would not end.
        let told = self.commands.send(Command::EndAll(reason)).is_ok();
        self.wake();
        told
    }

    /// Whether the thread goes on. One that ended by a fault takes no more sessions.
    pub(super) fn is_running(&self) -> bool {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits for the thread to end.
    pub(super) fn join(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("a data path worker panicked");
        }
    }

    fn tell(&self, command: Command) -> bool {
        let told = self.commands.try_send(command).is_ok();
        self.wake();
        told
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the worker is awake already.
        self.wake.write(1).ok();
    }
}

struct Worker {
    epoll: Epoll,
    inbox: Receiver<Command>,
    wake: Arc<EventFd>,
    kernel: Option<KernelAccess>,
    sessions: Vec<Entry>,
    free: Vec<u32>,
    live: usize,
    /// When to look at which session again; an entry whose session has changed its mind is void.
    alarms: BinaryHeap<Reverse<(Instant, u64)>>,
    scratch: Vec<u8>,
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
    fn new(
        inbox: Receiver<Command>,
        wake: Arc<EventFd>,
        kernel: Option<KernelAccess>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE_TOKEN))?;
        Ok(Self {
            epoll,
            inbox,
            wake,
            kernel,
            sessions: Vec::new(),
            free: Vec::new(),
            live: 0,
            alarms: BinaryHeap::new(),
            scratch: vec![0; RELAY_BUFFER_BYTES],
            ending: false,
        })
    }

    fn run(&mut self) {
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
        // Rounded up: a wait that is a fraction short would end in a busy loop.
        let wait = at.saturating_duration_since(Instant::now()) + EPOLL_GRANULE;
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    fn take_commands(&mut self) {
        // Reset before the inbox is read: a command that comes later wakes again.
        self.wake.read().ok();
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Adopt(handover) => self.adopt(*handover),
                Command::End(meter, reason) => self.end(&meter, &reason),
                Command::EndAll(reason) => {
                    self.ending = true;
                    self.end_all(&reason);
                }
            }
        }
    }

    fn adopt(&mut self, handover: Handover) {
        if self.ending {
            let session = Session::begin(handover, false);
            session.close(CloseReason::Shutdown, None);
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(Entry::default());
            self.sessions.len() as u32 - 1
        });
        self.live += 1;
        let mut session = Box::new(Session::begin(handover, self.kernel.is_some()));
        let outcome = session.start(&mut loan(&mut self.scratch, self.kernel.as_mut()));
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
        let wanted = session.interests(self.kernel.as_ref());
        if entry.registered == Some(wanted) {
            return;
        }
        let before = entry.registered.unwrap_or(Interests {
            client: None,
            backend: None,
        });
        let client_token = pack(index, entry.generation, Side::Client);
        let backend_token = pack(index, entry.generation, Side::Backend);
        let result = listen(
            &self.epoll,
            &session.client,
            before.client,
            wanted.client,
            client_token,
        )
        .and_then(|()| {
            listen(
                &self.epoll,
                &session.backend,
                before.backend,
                wanted.backend,
                backend_token,
            )
        });
        entry.registered = Some(wanted);
        if let Err(errno) = result {
            self.close(
                index,
                CloseReason::ClientFailed(format!("epoll_ctl: {errno}")),
            );
        }
    }

    fn close(&mut self, index: u32, reason: CloseReason) {
        let entry = &mut self.sessions[index as usize];
        let Some(session) = entry.session.take() else {
            return;
        };
        entry.registered = None;
        entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(index);
        self.live -= 1;
        session.close(reason, self.kernel.as_mut());
    }

    fn end(&mut self, meter: &Arc<Meter>, reason: &CloseReason) {
        let is_it = |entry: &Entry| {
            entry
                .session
                .as_ref()
                .is_some_and(|session| session.is_counted_on(meter))
        };
        if let Some(index) = self.sessions.iter().position(is_it) {
            self.close(index as u32, reason.clone());
        }
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
