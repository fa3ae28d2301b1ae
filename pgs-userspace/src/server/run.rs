//! Wiring: everything is built, then started; a signal ends it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::accepting::Accepting;
use super::admin;
use super::admin::Process;
use super::admission::Admission;
use super::binding::Bound;
use super::budget::Budget;
use super::budget::budget;
use super::cancel::CancelTable;
use super::connection::FrontDoor;
use super::counters::Counters;
use super::encryption::Encryption;
use super::ending::Ending;
use super::ending::Leaving;
use super::idle;
use super::keeping::TABLE;
use super::live::Live;
use super::live::Rules;
use super::namespace::Namespaces;
use super::notify;
use super::outliving::KernelSessions;
use super::outliving::Left;
use super::punctual::Punctual;
use super::reload::Reloader;
use super::sessions::Sessions;
use super::signals::Signals;
use super::signals::StopSignals;
use super::strangers;
use super::survival::KeptListeners;
use super::survival::Survival;
use crate::config::configuration::Configuration;
use crate::config::directories::Directories;
use crate::config::limits::CANCEL_LOOKS_MAX;
use crate::config::limits::FAREWELLS_MAX;
use crate::config::listen::ListenOn;
use crate::config::source::Source;
use crate::datapath::DataPath;
use crate::datapath::DataPathError;
use crate::datapath::Prepared;
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
    /// There can be no further thread.
    #[error("cannot start a thread (clone): {0}")]
    Thread(io::Error),
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
    let budget = budget(configuration);
    // A signal that comes while the parts are being built must not be lost.
    let Signals {
        mut stop,
        mut leave,
        hangup,
    } = Signals::listen()?;
    Survival::may_begin(&settings)?;
    // What can fail is built first: a router that lets go for this one must not do so for nothing.
    let routes = RouteTable::open(&settings.directories, configuration.tenant_defaults.clone())?;
    let encryption = encryption(&settings, &routes)?;
    let prepared = Prepared::new(configuration.serve.path)?;
    let bound = Bound::beforehand(&settings).await?;
    let (mut survival, mut held) = Survival::begin(&settings).await?;
    let mut kept = KeptListeners::of(&mut held);
    let listeners = bound.listen(&configuration.serve.listen, &mut kept)?;
    survival.keep_listeners(&listeners, &kept.all);
    drop(kept);
    let admin_path = settings.directories.admin_socket();
    let admin_listener = admin::bind(&admin_path).map_err(system("bind", &admin_path))?;
    let left = Left::of(&mut held).map_err(system("memfd_create", Path::new(TABLE)))?;
    let maps_kept_before = left.map_names();
    let (table, inheritance) = left.divided(held.slots.len());
    let data_path = Arc::new(DataPath::start(prepared, inheritance)?);
    // Everything is loaded and listened on.
    privileges::relinquish()?;
    privileges::warn_of_foreign_groups();
    configuration.log_cautions();
    let door = front_door(configuration, routes, encryption, data_path, budget)?;
    let outliving = KernelSessions {
        door: Arc::clone(&door),
        kept: survival.kept.clone(),
        directories: settings.directories.clone(),
        table: OnceLock::new(),
    };
    let elsewhere = outliving.begin(held, table, maps_kept_before);
    let (source, file) = (settings.source.clone(), settings.configuration_file.clone());
    let reloader = Arc::new(Reloader::new(Arc::clone(&door), source, file));
    let process = Arc::new(Process {
        begun,
        listen: addresses(&listeners, &configuration.serve.listen),
        kept: survival.kept.clone(),
        reloader: Arc::clone(&reloader),
    });
    announce(&door, budget, &process);
    let mut tasks = JoinSet::new();
    let admin = tasks.spawn(admin::serve(Arc::clone(&door), process, admin_listener));
    let elsewhere = tasks.spawn(elsewhere.watch(settings.take_over));
    tasks.spawn(idle::watch(Arc::clone(&door)));
    tasks.spawn(strangers::watch());
    tasks.spawn(reloader.at_signals(hangup));
    let pinned = configuration.serve.listen.iter();
    let pinned = pinned.map(|on| on.tenant.clone());
    let listeners = listeners.into_iter().zip(pinned).collect();
    let accepting = Accepting::start(&door, listeners, budget.arrivals);
    let ending = serve(accepting, &mut stop, &mut leave, &mut survival, &outliving).await;
    // This router's sessions alone are waited for.
    elsewhere.abort();
    let left = Leaving {
        door,
        tasks,
        admin,
        survival,
        admin_path,
    };
    left.end(ending, &mut stop).await
}

/// What every connection uses.
fn front_door(
    configuration: &Configuration,
    routes: RouteTable,
    encryption: Encryption,
    data_path: Arc<DataPath>,
    budget: Budget,
) -> Result<Arc<FrontDoor>, ServeError> {
    let limits = &configuration.limits;
    let admission = Admission::new(limits, budget);
    let punctual = Punctual::start().map_err(ServeError::Thread)?;
    Ok(Arc::new(FrontDoor {
        routes,
        live: Live::new(Rules {
            configuration: configuration.clone(),
            encryption,
        }),
        sessions: Arc::new(Sessions::new(budget.sessions)),
        cancels: Arc::new(CancelTable::new(limits)),
        admission: Arc::new(admission),
        farewells: Semaphore::new(FAREWELLS_MAX),
        looks: Semaphore::new(CANCEL_LOOKS_MAX),
        authorities: ClientAuthorities::default(),
        namespaces: Namespaces::default(),
        counters: Counters::default(),
        data_path,
        punctual,
        draining: AtomicBool::new(false),
    }))
}

/// Accepts connections until it is over, and why it is.
async fn serve(
    mut accepting: Accepting,
    stop: &mut StopSignals,
    leave: &mut Signal,
    survival: &mut Survival,
    outliving: &KernelSessions,
) -> Ending {
    let keeps = survival.outlives();
    let ending = loop {
        let event = tokio::select! {
            () = stop.first() => break Ending::Stop,
            _ = leave.recv() => break if keeps { Ending::Left } else { Ending::Stop },
            event = survival.event() => event,
        };
        // Not given up half-way: a signal waits until it is certain whose the sessions are.
        if accepting.on_event(event, survival, outliving).await {
            break Ending::HandedOver;
        }
    };
    // Whoever has accepted the last connections closes the listeners with this.
    accepting.stop().await;
    if ending == Ending::Left {
        accepting.let_go(outliving).await;
    }
    ending
}

/// As they are, also where the kernel has chosen the port.
fn addresses(listeners: &[Arc<TcpListener>], asked: &[ListenOn]) -> Vec<String> {
    let pairs = listeners.iter().zip(asked);
    let address = |(listener, asked): (&Arc<TcpListener>, &ListenOn)| {
        let address = listener.local_addr().ok()?;
        let tenant = asked.tenant.clone();
        Some(ListenOn { address, tenant }.to_string())
    };
    pairs.filter_map(address).collect()
}

/// Tells the log and the service manager that clients are served, and how.
fn announce(door: &FrontDoor, budget: Budget, process: &Process) {
    let findings = door.data_path.findings();
    let path = if findings.kernel { "kernel" } else { "relay" };
    tracing::info!(
        listen = process.listen.join(" "),
        path,
        reason = findings.reason(),
        sessions_max = budget.sessions,
        arrivals_max = budget.arrivals,
        logins_waiting_max = budget.waiting,
        uid = nix::unistd::geteuid().as_raw(),
        configuration = process.reloader.last().file,
        "serving"
    );
    notify::ready(&format!("path {path}"));
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

pub(super) fn system(
    call: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ServeError + use<> {
    let path = path.to_owned();
    move |error| ServeError::System { call, path, error }
}
