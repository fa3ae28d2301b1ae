//! What of this router outlives it: which store keeps it, and which sockets come from there.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use socket2::Socket;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::run::ServeError;
use super::run::Settings;
use super::run::system;
use crate::admin::request::SurvivalReport;
use crate::config::limits::KEEPER_EVENTS_MAX;
use crate::config::limits::KEEPER_EXCHANGE_DEADLINE;
use crate::config::limits::SERVE_LOCK_POLL_INTERVAL;
use crate::keeper::inquiry::inquire;
use crate::keeper::link::Launch;
use crate::keeper::link::ProcessStore;
use crate::keeper::store::DescriptorStore;
use crate::keeper::store::Event;
use crate::keeper::store::Farewell;
use crate::keeper::store::GlobalName;
use crate::keeper::store::Health;
use crate::keeper::store::Held;
use crate::keeper::store::StoreError;
use crate::keeper::systemd::Environment;
use crate::keeper::systemd::SystemdStore;

/// The lock that one router at a time has on a run directory.
type ServeLock = Flock<File>;

/// What keeps this router's descriptors, if anything does.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// This store.
    By(Arc<dyn DescriptorStore>),
    /// Nothing does; why.
    Not(String),
}

impl Kept {
    /// For `pgs status`.
    pub(super) fn report(&self) -> SurvivalReport {
        let (kept_by, process_id, reason) = match self {
            Self::By(store) => {
                let reason = match store.health() {
                    Health::Working => None,
                    Health::Failing(why) => Some(why),
                };
                (store.name(), store.process_id(), reason)
            }
            Self::Not(why) => ("nothing", None, Some(why.clone())),
        };
        SurvivalReport {
            kept_by: kept_by.into(),
            process_id,
            reason,
            older_ebpf_object: None,
        }
    }

    fn store(&self) -> Option<&Arc<dyn DescriptorStore>> {
        match self {
            Self::By(store) => Some(store),
            Self::Not(_) => None,
        }
    }
}

/// This router's hold on its run directory.
#[derive(Debug)]
pub(super) struct Survival {
    pub(super) kept: Kept,
    events: mpsc::Receiver<Event>,
    /// None after another router has taken over.
    lock: Option<ServeLock>,
    /// How many are kept.
    listeners: usize,
}

impl Survival {
    /// Fails early where another router is running and is not to be taken over.
    pub(super) fn may_begin(settings: &Settings) -> Result<(), ServeError> {
        let run = settings.directories.run();
        std::fs::create_dir_all(run).map_err(system("mkdir", run))?;
        if settings.take_over || lock(run)?.is_some() {
            return Ok(());
        }
        Err(ServeError::Running(run.to_owned()))
    }

    /// Becomes the one router of the run directory, and gets what the last one has left.
    pub(super) async fn begin(settings: &Settings) -> Result<(Self, Held), ServeError> {
        let settings = settings.clone();
        // It may wait for the other router.
        let begun = tokio::task::spawn_blocking(move || Self::begin_waiting(&settings));
        begun
            .await
            .map_err(|_| ServeError::Fault("becoming the router"))?
    }

    fn begin_waiting(settings: &Settings) -> Result<(Self, Held), ServeError> {
        let run = settings.directories.run();
        let lock = lock(run)?;
        let (told, events) = mpsc::channel(KEEPER_EVENTS_MAX);
        let (kept, lock) = match lock {
            Some(lock) => (keep(settings, told)?, lock),
            None if settings.take_over => take_over(settings, told)?,
            None => return Err(ServeError::Running(run.to_owned())),
        };
        let held = kept.store().map(|store| store.take_all());
        let lock = Some(lock);
        let survival = Self {
            kept,
            events,
            lock,
            listeners: 0,
        };
        Ok((survival, held.unwrap_or_default()))
    }

    /// Whether what is kept will be there for another router, once this one has ended by itself.
    /// systemd ends a keeper together with the unit.
    pub(super) fn outlives(&self) -> bool {
        matches!(self.kept, Kept::By(_)) && !Environment::unit_without_store()
    }

    /// The next thing that the store has to say. Never, where there is none.
    pub(super) async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Keeps the listeners, and lets go of those that were kept for addresses not listened on.
    pub(super) fn keep_listeners(
        &mut self,
        listeners: &[Arc<TcpListener>],
        former: &[FormerListener],
    ) {
        self.listeners = listeners.len();
        tracing::debug!(listeners = self.listeners, "listening");
        let Some(store) = self.kept.store() else {
            return;
        };
        let names: Vec<_> = (0..listeners.len()).filter_map(listener_name).collect();
        // First what has another name now, or none: systemd does not take a socket that it has
        // under any name (`service_add_fd_store` of its `src/core/service.c`).
        for one in former {
            let mut named = names.iter().zip(listeners);
            if named.any(|(name, listener)| one.is_still(name, listener)) {
                continue;
            }
            if let Err(error) = store.drop_global(&one.name) {
                let name = &one.name;
                tracing::warn!(%error, %name, "a former listener is still kept");
            }
        }
        for (name, listener) in names.iter().zip(listeners) {
            if let Err(error) = store.put_global(name, listener.as_fd()) {
                tracing::warn!(%error, %name, "a listener is not kept");
            }
        }
    }

    /// This router ends: who connects now is refused at once. Where its unit may be started anew,
    /// who connects waits for that.
    pub(super) fn let_go_of_listeners(&self) {
        let Some(store) = self.kept.store() else {
            return;
        };
        if store.keeps_after_the_end() {
            return;
        }
        for name in (0..self.listeners).filter_map(listener_name) {
            if let Err(error) = store.drop_global(&name) {
                tracing::warn!(%error, %name, "a listener is still kept");
            }
        }
    }

    /// Leaves everything to the router that waits. Where that fails, this one goes on.
    pub(super) async fn hand_over(&mut self) -> Result<(), StoreError> {
        let Some(store) = self.kept.store().cloned() else {
            return Err(StoreError::Gone);
        };
        // First the lock: the other wants it as soon as it has the rest.
        let lock = self.lock.take();
        let file = lock.map(Flock::unlock).and_then(Result::ok);
        let goodbye = move || store.goodbye(Farewell::HandingOver);
        let done = tokio::task::spawn_blocking(goodbye)
            .await
            .unwrap_or(Err(StoreError::Gone));
        if done.is_err()
            && let Some(file) = file
        {
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            self.lock = lock.ok();
        }
        done
    }

    /// Everything has ended: nothing is kept any longer.
    pub(super) async fn end(self) {
        let Some(store) = self.kept.store().cloned() else {
            return;
        };
        let goodbye = tokio::task::spawn_blocking(move || store.goodbye(Farewell::Ended));
        if let Ok(Err(error)) = goodbye.await {
            tracing::warn!(%error, "the keeper did not take leave");
        }
    }
}

/// Where things are kept, for a router that is alone.
fn keep(settings: &Settings, told: mpsc::Sender<Event>) -> Result<Kept, ServeError> {
    if !settings.keeper {
        return Ok(Kept::Not("`--keeper off`".to_owned()));
    }
    if Environment::unit_without_store() {
        tracing::warn!(
            hint = "`FileDescriptorStoreMax=` in the unit",
            "systemd has no descriptor store for this unit: it ends the keeper with the router"
        );
    }
    let opened: Result<Arc<dyn DescriptorStore>, _> = match Environment::of_this_process() {
        Some(environment) => SystemdStore::open(&environment).map(|store| Arc::new(store) as _),
        None => open_process(settings, false, told).map(|store| Arc::new(store) as _),
    };
    match opened {
        Ok(store) => Ok(Kept::By(store)),
        Err(error @ StoreError::Busy { .. }) => Err(ServeError::TakeOver {
            run: settings.directories.run().to_owned(),
            error,
        }),
        Err(error) => {
            tracing::error!(%error, "nothing is kept: sessions end with this process");
            Ok(Kept::Not(error.to_string()))
        }
    }
}

fn open_process(
    settings: &Settings,
    take_over: bool,
    told: mpsc::Sender<Event>,
) -> Result<ProcessStore, StoreError> {
    let launch = Launch::of_this_program(settings.directories.run().to_owned());
    let listener = move |event| {
        if told.try_send(event).is_err() {
            tracing::error!("an event of the keeper is lost: the router does not listen");
        }
    };
    ProcessStore::open(launch, take_over, Box::new(listener))
}

/// Waits for the router that is running to let go.
fn take_over(
    settings: &Settings,
    told: mpsc::Sender<Event>,
) -> Result<(Kept, ServeLock), ServeError> {
    let run = settings.directories.run();
    let failed = |error| ServeError::TakeOver {
        run: run.to_owned(),
        error,
    };
    if inquire(run).map_err(failed)?.is_none() {
        return Err(ServeError::NoTakeOver(run.to_owned()));
    }
    tracing::info!("waiting for the other router to let go");
    let store = open_process(settings, true, told).map_err(failed)?;
    tracing::debug!("let in by the keeper, with all that is kept");
    let until = Instant::now() + KEEPER_EXCHANGE_DEADLINE;
    loop {
        if let Some(lock) = lock(run)? {
            tracing::debug!("the run directory is this router's");
            return Ok((Kept::By(Arc::new(store)), lock));
        }
        if Instant::now() > until {
            return Err(ServeError::Running(run.to_owned()));
        }
        std::thread::sleep(SERVE_LOCK_POLL_INTERVAL);
    }
}

/// None where another router has it.
fn lock(run: &Path) -> Result<Option<ServeLock>, ServeError> {
    let path = run.join("serve.lock");
    let file = File::create(&path).map_err(system("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(system("flock", &path)(error.into())),
    }
}

fn listener_name(index: usize) -> Option<GlobalName> {
    GlobalName::new(format!("listener.{index}"))
}

/// What was kept as a listener.
#[derive(Debug)]
pub(super) struct FormerListener {
    name: GlobalName,
    /// None where it was none.
    address: Option<SocketAddr>,
}

impl FormerListener {
    fn is_still(&self, name: &GlobalName, listener: &TcpListener) -> bool {
        let address = listener.local_addr().ok();
        self.name == *name && self.address.is_some() && self.address == address
    }
}

/// Listeners that were kept, by the address that they listen on.
#[derive(Debug, Default)]
pub(super) struct KeptListeners {
    by_address: Vec<(SocketAddr, Socket)>,
    pub(super) all: Vec<FormerListener>,
}

impl KeptListeners {
    /// Takes them out of what was kept.
    pub(super) fn of(held: &mut Held) -> Self {
        let mut found = Self::default();
        let is_listener = |name: &GlobalName| name.as_str().starts_with("listener.");
        let globals = std::mem::take(&mut held.globals);
        let (listeners, rest): (Vec<_>, Vec<(GlobalName, OwnedFd)>) =
            globals.into_iter().partition(|(name, _)| is_listener(name));
        held.globals = rest;
        for (name, descriptor) in listeners {
            let socket = Socket::from(descriptor);
            let address = socket.local_addr().ok().and_then(|found| found.as_socket());
            let address = address.filter(|_| socket.is_listener().unwrap_or(false));
            if let Some(address) = address {
                found.by_address.push((address, socket));
            }
            found.all.push(FormerListener { name, address });
        }
        found
    }

    /// The one for an address, if it was kept.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<std::io::Result<TcpListener>> {
        let all = &mut self.by_address;
        let index = all.iter().position(|(kept, _)| *kept == address)?;
        let (_, socket) = all.swap_remove(index);
        let nonblocking = socket.set_nonblocking(true);
        Some(nonblocking.and_then(|()| TcpListener::from_std(socket.into())))
    }
}
