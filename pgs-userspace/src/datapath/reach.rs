//! The other threads' end of a worker: what it can be told.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::TrySendError;
use std::sync::mpsc::sync_channel;

use nix::sys::eventfd::EfdFlags;
use nix::sys::eventfd::EventFd;

use super::handover::CloseReason;
use super::handover::Handover;
use super::handover::Orphan;
use super::kernel::KernelAccess;
use super::kernel::Place;
use super::meter::Meter;
use super::worker::Worker;
use crate::config::limits::WORKER_COMMANDS_MAX;
use crate::privileges;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Command {
    Adopt(Box<Handover>),
    Resume(Box<Orphan>),
    Notice(Place),
    Clear(Place),
    Reserve(Arc<HashSet<u32>>),
    /// Leave what goes on alone to another router, until it is said what became of that.
    Release(SyncSender<()>),
    Released,
    TakeBack,
    KeepAgain,
    End(Arc<Meters>, CloseReason),
    EndAll(CloseReason),
}

/// Meters of sessions, by their addresses. Each is held, so that no other meter comes to have its
/// address meanwhile.
#[derive(Debug)]
pub(super) struct Meters(HashMap<usize, Arc<Meter>>);

impl Meters {
    /// Whether this very meter is among them.
    pub(super) fn contain(&self, meter: &Arc<Meter>) -> bool {
        self.0.contains_key(&Arc::as_ptr(meter).addr())
    }

    /// Whether there are none.
    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'m> FromIterator<&'m Arc<Meter>> for Meters {
    fn from_iter<Those: IntoIterator<Item = &'m Arc<Meter>>>(meters: Those) -> Self {
        let by_address = |meter: &Arc<Meter>| (Arc::as_ptr(meter).addr(), Arc::clone(meter));
        Self(meters.into_iter().map(by_address).collect())
    }
}

/// What it takes to tell a worker something.
#[derive(Debug, Clone)]
pub(super) struct WorkerReach {
    commands: SyncSender<Command>,
    wake: Arc<EventFd>,
    look_at_all: Arc<AtomicBool>,
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) commands: Receiver<Command>,
    /// Written to behind every command, and behind [`Self::look_at_all`].
    pub(super) wake: Arc<EventFd>,
    /// Notices were lost: there was no place for them among the commands.
    pub(super) look_at_all: Arc<AtomicBool>,
}

/// The other threads' end of a worker.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    reach: WorkerReach,
    thread: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl WorkerHandle {
    /// Starts a worker; `kernel` is `None` when it is to relay everything.
    pub(super) fn start(index: usize, kernel: Option<KernelAccess>) -> io::Result<Self> {
        let (reach, inbox) = WorkerReach::new(WORKER_COMMANDS_MAX)?;
        let mut worker = Worker::new(inbox, kernel)?;
        let thread = std::thread::Builder::new()
            .name(format!("data-path-{index}"))
            .spawn(move || {
                privileges::relinquish_or_log();
                worker.run();
            })?;
        Ok(Self {
            reach,
            thread: std::sync::Mutex::new(Some(thread)),
        })
    }

    /// Gives a session to the worker, or gives it back when too much waits already.
    pub(super) fn adopt(&self, handover: Handover) -> Result<(), Box<Handover>> {
        match self
            .reach
            .commands
            .try_send(Command::Adopt(Box::new(handover)))
        {
            Ok(()) => {
                self.reach.wake();
                Ok(())
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => match command
            {
                Command::Adopt(handover) => Err(handover),
                _ => Ok(()),
            },
        }
    }

    /// For another thread.
    pub(super) fn reach(&self) -> WorkerReach {
        self.reach.clone()
    }

    /// Ends every session of this worker, and the worker with the last one.
    pub(super) fn end_all(&self, reason: CloseReason) -> bool {
        // Waits for its place: without it the worker would not end.
        let told = self.reach.commands.send(Command::EndAll(reason)).is_ok();
        self.reach.wake();
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
}

impl WorkerReach {
    /// For a worker for which at most so many commands wait.
    pub(super) fn new(commands_max: usize) -> io::Result<(Self, Inbox)> {
        let (commands, inbox) = sync_channel(commands_max);
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let reach = Self {
            commands,
            wake: Arc::new(wake),
            look_at_all: Arc::default(),
        };
        let inbox = Inbox {
            commands: inbox,
            wake: Arc::clone(&reach.wake),
            look_at_all: Arc::clone(&reach.look_at_all),
        };
        Ok((reach, inbox))
    }

    /// Tells of diverted bytes of the session at this place; false where the worker has ended.
    /// There is no second notice of them: where too much waits, the worker looks at all its
    /// sessions.
    pub(super) fn notice(&self, place: Place) -> bool {
        let told = self.commands.try_send(Command::Notice(place));
        if matches!(told, Err(TrySendError::Full(_))) && !self.look_at_all.swap(true, SeqCst) {
            tracing::warn!("a worker's commands are full: it looks at all its sessions");
        }
        self.wake();
        !matches!(told, Err(TrySendError::Disconnected(_)))
    }

    /// Has the worker look at all its sessions: of some it may not have been told.
    pub(super) fn look_at_all(&self) {
        self.look_at_all.store(true, SeqCst);
        self.wake();
    }

    /// Ends the sessions that these meters count, those that are this worker's. Waits for its
    /// place: nobody asks again.
    pub(super) fn end(&self, meters: &Arc<Meters>, reason: &CloseReason) -> bool {
        self.tell_surely(Command::End(Arc::clone(meters), reason.clone()))
    }

    /// Gives the worker a session that another router has left; gives it back when too much waits.
    pub(super) fn resume(&self, orphan: Orphan) -> Result<(), Box<Orphan>> {
        match self.commands.try_send(Command::Resume(Box::new(orphan))) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => match command
            {
                Command::Resume(orphan) => Err(orphan),
                _ => Ok(()),
            },
        }
    }

    /// Has the worker clear a place that nobody goes on with.
    pub(super) fn clear(&self, place: Place) -> bool {
        self.tell(Command::Clear(place))
    }

    /// Has the worker give none of these places to a session before it has cleared it.
    pub(super) fn reserve(&self, places: &Arc<HashSet<u32>>) -> bool {
        self.tell_surely(Command::Reserve(Arc::clone(places)))
    }

    /// Has the worker leave its sessions to another router; `done` is told when it does nothing
    /// with them any more. Then [`Self::released`] or [`Self::take_back`] has to follow.
    pub(super) fn release(&self, done: SyncSender<()>) -> bool {
        self.tell(Command::Release(done))
    }

    /// The other router has what was left to it.
    pub(super) fn released(&self) -> bool {
        self.tell_surely(Command::Released)
    }

    /// There is no other router: the worker goes on with what it had left.
    pub(super) fn take_back(&self) -> bool {
        self.tell_surely(Command::TakeBack)
    }

    /// Has the worker's sessions kept again.
    pub(super) fn keep_again(&self) -> bool {
        self.tell_surely(Command::KeepAgain)
    }

    /// Waits for a place among the commands; false where the worker has ended.
    fn tell_surely(&self, command: Command) -> bool {
        let told = self.commands.send(command).is_ok();
        self.wake();
        told
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
