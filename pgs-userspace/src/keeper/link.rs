//! The router's side of a keeper process.
//!
//! What begins or ends a session says so with one `sendmsg` that does not wait. Only when the
//! keeper's queue is full (Linux lets about ten messages wait) does it go to the backlog, which the
//! link's own thread empties, many slots a message. That thread also notices when the keeper is
//! gone, and starts another.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use socket2::Socket;

pub use super::attach::Launch;
use super::attach::attach;
use super::backlog::Backlog;
use super::channel;
use super::channel::Patience;
use super::holdings::gather;
use super::link_thread;
use super::message::Message;
use super::store::DescriptorStore;
use super::store::Event;
use super::store::Farewell;
use super::store::GlobalName;
use super::store::Health;
use super::store::Held;
use super::store::Slot;
use super::store::SlotDescriptors;
use super::store::StoreError;
use crate::config::limits::KEEPER_EXCHANGE_DEADLINE;

/// Told what the store has to tell, on the link's thread: it must not wait.
pub type Listener = Box<dyn Fn(Event) + Send>;

/// A keeper process of our own.
#[derive(Debug)]
pub struct ProcessStore {
    shared: Arc<Shared>,
    held: Mutex<Option<Held>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A farewell under way, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) farewell: Farewell,
    pub(super) said: bool,
    pub(super) answer: SyncSender<Result<(), StoreError>>,
}

/// What the router's threads and the link's own share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) launch: Launch,
    pub(super) backlog: Backlog,
    pub(super) leaving: Mutex<Option<Leaving>>,
    /// From then on no new keeper is started.
    pub(super) stopping: AtomicBool,
    line: RwLock<Option<Arc<Socket>>>,
    globals: Mutex<BTreeMap<GlobalName, OwnedFd>>,
    /// Slots that the keeper had no room for.
    untaken: Mutex<BTreeSet<Slot>>,
    health: Mutex<Health>,
    process_id: AtomicU32,
}

impl ProcessStore {
    /// Attaches to the keeper of a run directory, or starts one. With `take_over` it waits for the
    /// attached router, if there is one, to let go.
    ///
    /// # Errors
    /// Another router is attached and stays; or there can be no keeper.
    pub fn open(launch: Launch, take_over: bool, listener: Listener) -> Result<Self, StoreError> {
        let attached = attach(&launch, take_over)?;
        let shared = Arc::new(Shared {
            launch,
            backlog: Backlog::new().map_err(StoreError::system("eventfd"))?,
            leaving: Mutex::default(),
            stopping: AtomicBool::new(false),
            line: RwLock::default(),
            globals: Mutex::default(),
            untaken: Mutex::default(),
            health: Mutex::new(Health::Working),
            process_id: AtomicU32::new(0),
        });
        let socket = shared.connect(attached.socket, attached.process_id);
        let (ours, child) = (Arc::clone(&shared), attached.child);
        let thread = std::thread::Builder::new()
            .name("keeper-link".to_owned())
            .spawn(move || link_thread::run(&ours, socket, child, &listener))
            .map_err(StoreError::system("start a thread"))?;
        Ok(Self {
            shared,
            held: Mutex::new(Some(attached.held)),
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl DescriptorStore for ProcessStore {
    fn name(&self) -> &'static str {
        "keeper"
    }

    fn process_id(&self) -> Option<u32> {
        self.shared.keeper_process_id()
    }

    fn keeps_after_the_end(&self) -> bool {
        false
    }

    fn put_global(&self, name: &GlobalName, descriptor: BorrowedFd<'_>) -> Result<(), StoreError> {
        let copy = descriptor
            .try_clone_to_owned()
            .map_err(StoreError::system("dup"))?;
        let line = self.shared.line();
        // Kept here too, for the keeper that comes in the place of this one.
        lock(&self.shared.globals).insert(name.clone(), copy);
        let message = Message::Global(name.clone());
        send_waiting(line?.as_ref(), &message, &[descriptor])
    }

    fn drop_global(&self, name: &GlobalName) -> Result<(), StoreError> {
        lock(&self.shared.globals).remove(name);
        let message = Message::DropGlobal(name.clone());
        send_waiting(self.shared.line()?.as_ref(), &message, &[])
    }

    fn put_slot(
        &self,
        slot: Slot,
        descriptors: &SlotDescriptors<BorrowedFd<'_>>,
    ) -> Result<(), StoreError> {
        let copies = || {
            let copies = descriptors.duplicated();
            copies.map(Some).map_err(StoreError::system("dup"))
        };
        let borrowed = SlotDescriptors::from_parts(descriptors.parts().map(Option::<&_>::copied));
        // What the keeper says of this one comes after it is sent.
        lock(&self.shared.untaken).remove(&slot);
        let (message, all) = gather(std::iter::once((slot, borrowed)));
        self.shared.say(slot, &message, &all, copies)
    }

    fn drop_slot(&self, slot: Slot) -> Result<(), StoreError> {
        lock(&self.shared.untaken).remove(&slot);
        let message = Message::DropSlots(vec![slot]);
        self.shared.say(slot, &message, &[], || Ok(None))
    }

    fn holds_slot(&self, slot: Slot) -> bool {
        self.shared.line().is_ok() && !lock(&self.shared.untaken).contains(&slot)
    }

    fn take_all(&self) -> Held {
        lock(&self.held).take().unwrap_or_default()
    }

    fn health(&self) -> Health {
        lock(&self.shared.health).clone()
    }

    fn goodbye(&self, farewell: Farewell) -> Result<(), StoreError> {
        let (answer, answered) = sync_channel(1);
        if farewell == Farewell::Ended {
            self.shared.stopping.store(true, Relaxed);
        }
        *lock(&self.shared.leaving) = Some(Leaving {
            farewell,
            said: false,
            answer,
        });
        self.shared.backlog.wake();
        // Not answered: the thread has ended, with its keeper.
        let result = answered
            .recv_timeout(KEEPER_EXCHANGE_DEADLINE)
            .unwrap_or_else(|_| {
                // From here on an answer is too late; one in the last moment counts.
                drop(lock(&self.shared.leaving).take());
                answered.try_recv().unwrap_or(Err(StoreError::Gone))
            });
        if result.is_ok() || farewell == Farewell::Ended {
            self.shared.stopping.store(true, Relaxed);
            self.shared.backlog.wake();
            if let Some(thread) = lock(&self.thread).take() {
                // A panic there has been printed; there is nothing left that it could harm.
                drop(thread.join());
            }
        }
        result
    }
}

impl Shared {
    /// The line that messages go by from now on.
    pub(super) fn connect(&self, socket: Socket, process_id: u32) -> Arc<Socket> {
        let socket = Arc::new(socket);
        let line = Some(Arc::clone(&socket));
        *self.line.write().unwrap_or_else(PoisonError::into_inner) = line;
        self.process_id.store(process_id, Relaxed);
        self.set_health(Health::Working);
        socket
    }

    /// There is no keeper.
    pub(super) fn disconnect(&self, why: &str) {
        *self.line.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.process_id.store(0, Relaxed);
        self.backlog.clear();
        lock(&self.untaken).clear();
        self.set_health(Health::Failing(why.to_owned()));
    }

    pub(super) fn keeper_process_id(&self) -> Option<u32> {
        Some(self.process_id.load(Relaxed)).filter(|id| *id != 0)
    }

    pub(super) fn set_health(&self, health: Health) {
        *lock(&self.health) = health;
    }

    /// The keeper has no room for more: for these slots, or for what all sessions need.
    pub(super) fn is_refused(&self, slots: Vec<Slot>) {
        let why = match slots.is_empty() {
            false => "the keeper takes no more: some sessions end with this process",
            true => "the keeper does not take what sessions go on with: they end with this process",
        };
        let hint = "raise the limit on open files";
        tracing::warn!(why, slots = slots.len(), hint);
        self.set_health(Health::Failing(why.to_owned()));
        lock(&self.untaken).extend(slots);
    }

    /// Gives a new keeper what belongs to no slot.
    pub(super) fn put_globals(&self, socket: &Socket) -> Result<(), StoreError> {
        use std::os::fd::AsFd as _;
        for (name, descriptor) in lock(&self.globals).iter() {
            let message = Message::Global(name.clone());
            send_waiting(socket, &message, &[descriptor.as_fd()])?;
        }
        Ok(())
    }

    fn line(&self) -> Result<Arc<Socket>, StoreError> {
        let line = self.line.read().unwrap_or_else(PoisonError::into_inner);
        line.clone().ok_or(StoreError::Gone)
    }

    /// Sends what is to be true of a slot, or lets it wait.
    fn say(
        &self,
        slot: Slot,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
        wanted: impl FnOnce() -> Result<Option<SlotDescriptors<OwnedFd>>, StoreError>,
    ) -> Result<(), StoreError> {
        let line = self.line()?;
        if self.backlog.is_empty() {
            match channel::send(&line, message, descriptors, Patience::None) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => {}
                Err(_) => return Err(StoreError::Gone),
            }
        }
        self.backlog.push(slot, wanted()?).map_err(|_stuck| {
            // Its thread sees the line closed, and replaces it.
            drop(line.shutdown(std::net::Shutdown::Both));
            StoreError::Gone
        })
    }
}

/// Whether it can be sent a moment later: the other's queue is full, or too many descriptors are
/// under way (`ETOOMANYREFS`, unix(7)).
pub(super) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

fn send_waiting(
    socket: &Socket,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), StoreError> {
    channel::send(socket, message, descriptors, Patience::Wait)
        .map_err(StoreError::system("sendmsg to the keeper"))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds one of these locks can leave its content half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
