//! Wiring: everything is built, then started; a signal ends it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::admin;
use super::admin::Process;
use super::admission::Admission;
use super::budget::Budget;
use super::cancel::CancelTable;
use super::connection::FrontDoor;
use super::counters::Counters;
use super::encryption::Encryption;
use super::idle;
use super::listener;
use super::notify;
use super::sessions::Sessions;
use crate::config::configuration::Configuration;
use crate::config::directories::Directories;
use crate::config::limits::DRAIN_CHECK_INTERVAL;
use crate::config::limits::FAREWELLS_MAX;
use crate::config::limits::SECURE_RELAY_END_DEADLINE;
use crate::config::sections::Limits;
use crate::datapath::DataPath;
use crate::datapath::DataPathError;
use crate::datapath::handover::CloseReason;
use crate::privileges;
use crate::privileges::PrivilegeError;
use crate::tenant::registry::RegistryError;
use crate::tenant::route::RouteTable;
use crate::tls::store::CertificateStore;

/// What `pgs serve` is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the registry, the sockets and the admin socket lie.
    pub directories: Directories,
    /// What the operator has decided.
    pub configuration: Configuration,
    /// The file that part of it comes from.
    pub configuration_file: Option<PathBuf>,
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

/// Serves until a signal says otherwise.
pub async fn run(settings: Settings) -> Result<(), ServeError> {
    let begun = Instant::now();
    let _lock = lock(&settings.directories)?;
    let configuration = &settings.configuration;
    let limits = &configuration.limits;
    let budget = budget(limits);
    let sessions_max = budget.sessions;
    // A signal that comes while the parts are being built must not be lost.
    let mut stop = StopSignals::listen()?;
    let routes = RouteTable::open(&settings.directories, configuration.tenant_defaults.clone())?;
    let listeners = bind_all(&configuration.serve.listen)?;
    let admin_path = settings.directories.admin_socket();
    let admin_listener = admin::bind(&admin_path).map_err(system("bind", &admin_path))?;
    let data_path = Arc::new(DataPath::start(configuration.serve.path)?);
    let encryption = encryption(&settings)?;
    // Everything is loaded and listened on.
    privileges::relinquish()?;
    let door = Arc::new(FrontDoor {
        routes,
        configuration: configuration.clone(),
        sessions: Arc::new(Sessions::new(sessions_max)),
        cancels: Arc::new(CancelTable::new(limits)),
        admission: Arc::new(Admission::new(limits)),
        farewells: Semaphore::new(FAREWELLS_MAX),
        encryption,
        counters: Counters::default(),
        data_path,
        draining: AtomicBool::new(false),
    });
    let configuration_file = settings
        .configuration_file
        .as_ref()
        .map(|file| file.display().to_string());
    let listen: Vec<_> = listeners
        .iter()
        .map(|(address, _)| address.to_string())
        .collect();
    let mut tasks = JoinSet::new();
    let process = Arc::new(Process {
        begun,
        listen,
        configuration_file,
    });
    let told = Arc::clone(&process);
    tasks.spawn(admin::serve(Arc::clone(&door), told, admin_listener));
    tasks.spawn(idle::watch(Arc::clone(&door)));
    let mut accepting = JoinSet::new();
    let arrivals = Arc::new(Semaphore::new(budget.arrivals));
    for (_, listener) in listeners {
        accepting.spawn(listener::accept(
            Arc::clone(&door),
            listener,
            Arc::clone(&arrivals),
        ));
    }
    announce(&door, sessions_max, &process);
    stop.first().await;
    notify::stopping("waiting for sessions to end");
    accepting.shutdown().await;
    drain(&door, configuration.serve.drain_deadline.0, &mut stop).await;
    tasks.shutdown().await;
    std::fs::remove_file(&admin_path).map_err(system("unlink", &admin_path))
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
        configuration = process.configuration_file.as_deref(),
        "serving"
    );
    notify::ready(&format!("path {path}"));
}

/// Waits for the sessions to end by themselves, at most so long, then ends them.
async fn drain(door: &Arc<FrontDoor>, deadline: Duration, stop: &mut StopSignals) {
    door.draining.store(true, Relaxed);
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
fn encryption(settings: &Settings) -> Result<Encryption, ServeError> {
    let directory = settings.directories.certificates();
    let certificates = CertificateStore::open(directory.clone());
    let tls = &settings.configuration.tls;
    if tls.required && certificates.is_empty() {
        return Err(ServeError::NoCertificate(directory));
    }
    let (required, domains) = (tls.required, tls.domains.0.clone());
    Ok(Encryption::new(certificates, required, domains)?)
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, ServeError> {
        let listen = |kind| signal(kind).map_err(system("sigaction", &PathBuf::from("signals")));
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

fn bind_all(
    addresses: &[SocketAddr],
) -> Result<Vec<(SocketAddr, tokio::net::TcpListener)>, ServeError> {
    let bind = |address: &SocketAddr| {
        let listener = listener::bind(*address)?;
        Ok((listener.local_addr()?, listener))
    };
    addresses
        .iter()
        .map(|address| {
            bind(address).map_err(|error: io::Error| match error.kind() {
                io::ErrorKind::AddrInUse => ServeError::AddressInUse { address: *address },
                _ => ServeError::Listen {
                    address: *address,
                    error,
                },
            })
        })
        .collect()
}

/// One router for each pair of directories.
fn lock(directories: &Directories) -> Result<Flock<std::fs::File>, ServeError> {
    let run = directories.run();
    std::fs::create_dir_all(run).map_err(system("mkdir", run))?;
    let path = run.join("serve.lock");
    let file = std::fs::File::create(&path).map_err(system("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| ServeError::Running(run.to_owned()))
}

/// What of the configured bounds the limit on open files has room for.
fn budget(limits: &Limits) -> Budget {
    let (sessions_max, arrivals_max) = (limits.sessions_max, limits.arrivals_max);
    let budget = Budget::within(raise_descriptor_limit(), sessions_max, arrivals_max);
    if budget.sessions < sessions_max {
        let sessions_max = budget.sessions;
        tracing::info!(sessions_max, "sessions bounded by the limit on open files");
    }
    budget
}

/// Raises the limit on open files as far as it goes; how many it allows.
fn raise_descriptor_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return usize::MAX;
    };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn system(
    call: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(io::Error) -> ServeError + use<> {
    let path = path.to_owned();
    move |error| ServeError::System { call, path, error }
}
