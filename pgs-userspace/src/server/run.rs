//! Wiring: everything is built, then started; a signal ends it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::accepting::Accepting;
use super::admin;
use super::admin::Process;
use super::admission::Admission;
use super::budget::Budget;
use super::cancel::CancelTable;
use super::connection::FrontDoor;
use super::counters::Counters;
use super::encryption::Encryption;
use super::idle;
use super::keeping::TABLE;
use super::listener;
use super::live::Live;
use super::live::Rules;
use super::namespace::Namespaces;
use super::notify;
use super::outliving::KernelSessions;
use super::outliving::Left;
use super::reload::Reloader;
use super::sessions::Sessions;
use super::survival::KeptListeners;
use super::survival::Survival;
use crate::config::configuration::Configuration;
use crate::config::directories::Directories;
use crate::config::limits::DRAIN_CHECK_INTERVAL;
use crate::config::limits::FAREWELLS_MAX;
use crate::config::limits::SECURE_RELAY_END_DEADLINE;
use crate::config::sections::Limits;
use crate::config::source::Source;
use crate::datapath::DataPath;
use crate::datapath::DataPathError;
use crate::datapath::Prepared;
use crate::datapath::handover::CloseReason;
use crate::keeper::store::StoreError;
use crate::privileges;
use crate::privileges::PrivilegeError;
use crate::tenant::registry::RegistryError;
use crate::tenant::route::RouteTable;
use crate::tls::client_authorities::ClientAuthorities;
use crate::tls::store::CertificateStore;

/// What `pgs serve` is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the registry, the sockets and the admin socket lie.
    pub directories: Directories,
    /// What the operator has decided.
    pub configuration: Configuration,
    /// Where that can be read again.
    pub source: Source,
    /// The file that part of it comes from.
    pub configuration_file: Option<PathBuf>,
    /// Whether a router that is running is taken over.
    pub take_over: bool,
    /// Whether descriptors are kept outside this process.
    pub keeper: bool,
}

/// Why the router does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The registry cannot be opened.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is no data path.
    #[error(transparent)]
    DataPath(#[from] DataPathError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// TLS is required and there is no certificate.
    #[error("TLS is required and there is no certificate in `{0}`")]
    NoCertificate(PathBuf),
    /// Another router serves these directories.
    #[error("another `pgs serve` is running with run directory `{0}`")]
    Running(PathBuf),
    /// Another router serves these directories, and nothing keeps its descriptors.
    #[error("the `pgs serve` with run directory `{0}` has no keeper: it cannot be taken over")]
    NoTakeOver(PathBuf),
    /// Another router was not taken over.
    #[error("cannot take over in run directory `{run}`: {error}")]
    TakeOver {
        /// Which.
        run: PathBuf,
        /// Why.
        error: StoreError,
    },
    /// A part of the program failed that cannot.
    #[error("a fault while {0}; please report it")]
    Fault(&'static str),
    /// An address is in use.
    #[error("cannot listen on {address}: the address is in use")]
    AddressInUse {
        /// Which.
        address: SocketAddr,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// From `bind` or `listen`.
        error: io::Error,
    },
    /// Privileges cannot be given up.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// A system call failed.
    #[error("{call} `{path}`: {error}")]
    System {
        /// Which.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Serves until a signal says otherwise, or another router takes over.
pub async fn run(settings: Settings) -> Result<(), ServeError> {
    let begun = Instant::now();
    let configuration = &settings.configuration;
    let limits = &configuration.limits;
    let budget = budget(limits);
    let sessions_max = budget.sessions;
    // A signal that comes while the parts are being built must not be lost.
    let mut stop = StopSignals::listen()?;
    let hangup = listen(SignalKind::hangup())?;
    Survival::may_begin(&settings)?;
    // What can fail is built first: a router that lets go for this one must not do so for nothing.
    let routes = RouteTable::open(&settings.directories, configuration.tenant_defaults.clone())?;
    let encryption = encryption(&settings, &routes)?;
    let prepared = Prepared::new(configuration.serve.path)?;
    let (mut survival, mut held) = Survival::begin(&settings).await?;
    let mut kept = KeptListeners::of(&mut held);
    let listeners = bind_all(&configuration.serve.listen, &mut kept)?;
    survival.keep_listeners(&listeners, &kept.names);
    drop(kept);
    let admin_path = settings.directories.admin_socket();
    let admin_listener = admin::bind(&admin_path).map_err(system("bind", &admin_path))?;
    let left = Left::of(&mut held).map_err(system("memfd_create", Path::new(TABLE)))?;
    let data_path = Arc::new(DataPath::start(prepared, left.descriptors)?);
    // Everything is loaded and listened on.
    privileges::relinquish()?;
    let door = Arc::new(FrontDoor {
        routes,
        live: Live::new(Rules {
            configuration: configuration.clone(),
            encryption,
        }),
        sessions: Arc::new(Sessions::new(sessions_max)),
        cancels: Arc::new(CancelTable::new(limits)),
        admission: Arc::new(Admission::new(limits)),
        farewells: Semaphore::new(FAREWELLS_MAX),
        authorities: ClientAuthorities::default(),
        namespaces: Namespaces::default(),
        counters: Counters::default(),
        data_path,
        draining: AtomicBool::new(false),
    });
    let outliving = KernelSessions {
        door: Arc::clone(&door),
        kept: survival.kept.clone(),
        directories: settings.directories.clone(),
    };
    outliving.begin(held, left.table);
    let (source, file) = (settings.source.clone(), settings.configuration_file.clone());
    let reloader = Arc::new(Reloader::new(Arc::clone(&door), source, file));
    let process = Arc::new(Process {
        begun,
        listen: addresses(&listeners),
        kept: survival.kept.clone(),
        reloader: Arc::clone(&reloader),
    });
    announce(&door, sessions_max, &process);
    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve(Arc::clone(&door), process, admin_listener));
    tasks.spawn(idle::watch(Arc::clone(&door)));
    tasks.spawn(reloader.at_signals(hangup));
    let accepting = Accepting::start(&door, listeners, budget.arrivals);
    let ending = serve(accepting, &mut stop, &mut survival, &outliving).await;
    let drain_deadline = door.live.rules().configuration.serve.drain_deadline.0;
    if ending == Ending::HandedOver {
        // The sockets under these names are the other router's now.
        tasks.shutdown().await;
        drain(&door, drain_deadline, &mut stop).await;
        return Ok(());
    }
    notify::stopping("waiting for sessions to end");
    survival.let_go_of_listeners();
    door.draining.store(true, Relaxed);
    drain(&door, drain_deadline, &mut stop).await;
    tasks.shutdown().await;
    survival.end().await;
    std::fs::remove_file(&admin_path).map_err(system("unlink", &admin_path))
}

/// Accepts connections until it is over, and why it is.
async fn serve(
    mut accepting: Accepting,
    stop: &mut StopSignals,
    survival: &mut Survival,
    outliving: &KernelSessions,
) -> Ending {
    let ending = tokio::select! {
        () = stop.first() => Ending::Stop,
        () = accepting.until_handed_over(survival, outliving) => Ending::HandedOver,
    };
    // Whoever has accepted the last connections closes the listeners with this.
    accepting.stop().await;
    ending
}

/// Why this router does not serve any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Stop,
    HandedOver,
}

fn addresses(listeners: &[Arc<TcpListener>]) -> Vec<String> {
    let address = |listener: &Arc<TcpListener>| Some(listener.local_addr().ok()?.to_string());
    listeners.iter().filter_map(address).collect()
}

/// Tells the log and the service manager that clients are served, and how.
fn announce(door: &FrontDoor, sessions_max: usize, process: &Process) {
    let findings = door.data_path.findings();
    let path = if findings.kernel { "kernel" } else { "relay" };
    tracing::info!(
        listen = process.listen.join(" "),
        path,
        reason = findings.reason.as_deref(),
        sessions_max,
        uid = nix::unistd::geteuid().as_raw(),
        configuration = process.reloader.last().file,
        "serving"
    );
    notify::ready(&format!("path {path}"));
}

/// Waits for the sessions to end by themselves, at most so long, then ends them.
async fn drain(door: &Arc<FrontDoor>, deadline: Duration, stop: &mut StopSignals) {
    let sessions = door.sessions.live();
    tracing::info!(
        sessions,
        seconds = deadline.as_secs(),
        "draining; a second signal ends at once"
    );
    tokio::select! {
        () = empty(door) => {}
        () = tokio::time::sleep(deadline) => {}
        () = stop.first() => {}
    }
    let sessions = door.sessions.live();
    if sessions > 0 {
        tracing::warn!(sessions, "ending the sessions that are left");
    }
    let data_path = Arc::clone(&door.data_path);
    door.sessions.end_all(&CloseReason::Shutdown);
    let ended = tokio::task::spawn_blocking(move || data_path.shut_down(&CloseReason::Shutdown));
    if ended.await.is_err() {
        tracing::error!("the data path did not shut down");
    }
    if timeout(SECURE_RELAY_END_DEADLINE, empty(door))
        .await
        .is_err()
    {
        tracing::warn!(sessions = door.sessions.live(), "sessions were cut off");
    }
    tracing::info!("stopped");
}

/// Waits until there are no sessions.
async fn empty(door: &FrontDoor) {
    while door.sessions.live() > 0 {
        tokio::time::sleep(DRAIN_CHECK_INTERVAL).await;
    }
}

/// What there is to encrypt with.
fn encryption(settings: &Settings, routes: &RouteTable) -> Result<Encryption, ServeError> {
    let directory = settings.directories.certificates();
    let certificates = CertificateStore::open(directory.clone());
    let tls = &settings.configuration.tls;
    let encryption = Encryption::new(certificates, tls)?;
    if tls.required && !encryption.offers_anything(routes.tls_wishes()?.passthrough) {
        return Err(ServeError::NoCertificate(directory));
    }
    Ok(encryption)
}

fn listen(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(system("sigaction", Path::new("signals")))
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, ServeError> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next of either.
    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Listens on every address, with the socket that was kept for it where there is one.
fn bind_all(
    addresses: &[SocketAddr],
    kept: &mut KeptListeners,
) -> Result<Vec<Arc<TcpListener>>, ServeError> {
    let mut bind = |address: &SocketAddr| {
        let kept = kept.take(*address);
        kept.unwrap_or_else(|| listener::bind(*address))
    };
    addresses
        .iter()
        .map(|address| {
            let listener = bind(address).map_err(|error: io::Error| match error.kind() {
                io::ErrorKind::AddrInUse => ServeError::AddressInUse { address: *address },
                _ => ServeError::Listen {
                    address: *address,
                    error,
                },
            });
            listener.map(Arc::new)
        })
        .collect()
}

/// What of the configured bounds the limit on open files has room for.
pub(super) fn budget(limits: &Limits) -> Budget {
    let (sessions_max, arrivals_max) = (limits.sessions_max, limits.arrivals_max);
    let descriptors = raise_descriptor_limit(Budget::descriptors(sessions_max, arrivals_max));
    let budget = Budget::within(descriptors, sessions_max, arrivals_max);
    if budget.sessions < sessions_max {
        let sessions_max = budget.sessions;
        tracing::info!(sessions_max, "sessions bounded by the limit on open files");
    }
    budget
}

/// Raises the limit on open files to what is wanted, or as far as it goes; how many it allows.
/// Beyond the hard limit it goes with CAP_SYS_RESOURCE.
fn raise_descriptor_limit(wanted: usize) -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return usize::MAX;
    };
    let wanted = wanted as u64;
    let set = |limit: u64| setrlimit(Resource::RLIMIT_NOFILE, limit, limit).map(|()| limit);
    let raised = if wanted > hard {
        set(wanted).or_else(|_| set(hard))
    } else {
        set(hard)
    };
    usize::try_from(raised.unwrap_or(soft)).unwrap_or(usize::MAX)
}

pub(super) fn system(
    call: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ServeError + use<> {
    let path = path.to_owned();
    move |error| ServeError::System { call, path, error }
}
