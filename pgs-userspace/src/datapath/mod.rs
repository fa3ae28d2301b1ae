//! Moves a session's bytes, in the kernel or by relay. Only [`kernel`] knows aya.
//!
//! A session comes here by a [`Handover`](handover::Handover) and stays with one worker thread.
//! Knows nothing of tenants and nothing of the protocol.

mod accounts;
#[cfg(test)]
mod arrivals_tests;
pub mod canary;
mod client_buffer;
mod crossing;
mod direction;
#[cfg(test)]
mod diversions_tests;
#[cfg(test)]
mod endings_tests;
pub mod findings;
pub mod handover;
pub mod kernel;
pub mod meter;
mod notified;
mod opening;
#[cfg(test)]
mod outliving_tests;
mod pump;
mod reach;
mod relapse;
#[cfg(test)]
mod repeated_tests;
#[cfg(test)]
mod reuse_tests;
mod session;
mod socket;
mod succession;
mod token;
pub(crate) mod unread;
pub(crate) mod unsent;
mod waiting;
mod withdrawal;
#[cfg(test)]
mod withdrawal_tests;
mod worker;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use accounts::Accounts;
use findings::Fallback;
use findings::Findings;
use handover::CloseReason;
use handover::Handover;
use kernel::FlowTable;
use kernel::Inheritance;
use kernel::KernelBytes;
use kernel::KernelPath;
use meter::Meter;
use notified::Following;
use opening::Opened;
use opening::workers_for;
use reach::Meters;
use reach::WorkerHandle;

/// Which path the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathRequest {
    /// The kernel path if it loads and every canary passes, else the relay.
    Auto,
    /// The kernel path, or no service at all.
    Kernel,
    /// The relay.
    Relay,
}

impl PathRequest {
    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Relay => "relay",
        }
    }
}

/// Why there is no data path.
#[derive(Debug, thiserror::Error)]
pub enum DataPathError {
    /// `--path kernel` on a machine where it does not work.
    #[error("the kernel path does not work here: {0}")]
    KernelRefused(String),
    /// A worker cannot be started.
    #[error("cannot start a data path worker: {0}")]
    Worker(#[from] io::Error),
}

/// The threads that move the bytes of all sessions.
#[derive(Debug)]
pub struct DataPath {
    workers: Vec<WorkerHandle>,
    next: AtomicUsize,
    accounts: Accounts,
    flows: Option<Arc<FlowTable>>,
    /// Dropped last: as long as its maps live the programs stay attached.
    kernel: Option<KernelPath>,
    /// Of which eBPF object the programs are, where it is not this router's own.
    older_object: Option<String>,
    /// Whether the verdict's notices are read here, and not by the router that took over.
    following: Arc<Following>,
    findings: Findings,
}

/// A data path that has been proved to work and has no sessions yet.
#[derive(Debug)]
pub struct Prepared {
    kernel: Option<KernelPath>,
    findings: Findings,
}

impl Prepared {
    /// Loads what is needed and tries it.
    pub fn new(requested: PathRequest) -> Result<Self, DataPathError> {
        let (kernel, findings) = choose(requested)?;
        Ok(Self { kernel, findings })
    }
}

impl DataPath {
    /// Starts the workers, one for each core up to `WORKERS_MAX`.
    pub fn start(prepared: Prepared, left: Inheritance) -> Result<Self, DataPathError> {
        let Prepared {
            kernel,
            mut findings,
        } = prepared;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = workers_for(cores);
        let opened = kernel.map(|kernel| Opened::new(kernel, left, count));
        let opened = opened.transpose().or_else(|error| {
            findings.refuse(Fallback::from(&error))?;
            Ok::<_, DataPathError>(None)
        })?;
        let (kernel, inherited, older_object, accesses, notices) = match opened {
            Some(opened) => (
                Some(opened.kernel),
                opened.inherited,
                opened.older_object,
                opened.accesses,
                Some(opened.notices),
            ),
            None => (None, false, None, Vec::new(), None),
        };
        let mut accesses = accesses.into_iter();
        let workers = (0..count)
            .map(|index| WorkerHandle::start(index, accesses.next()))
            .collect::<Result<Vec<_>, _>>()?;
        let following = Arc::<Following>::default();
        if let Some(notices) = notices {
            notified::follow(notices, &workers, Arc::clone(&following))?;
        }
        let flows = kernel.as_ref().map(|kernel| Arc::clone(kernel.flows()));
        let accounts = match &flows {
            // The other one enrols nothing any more: what no session names now is free.
            Some(flows) if inherited => Accounts::beside(flows.begin_unused_accounts()),
            _ => Accounts::default(),
        };
        tracing::debug!(count, inherited, "the workers run");
        Ok(Self {
            workers,
            next: AtomicUsize::new(0),
            accounts,
            flows,
            kernel,
            older_object,
            following,
            findings,
        })
    }

    /// The maps, by the names under which they are to be kept for the next router.
    pub fn kept_maps(&self) -> Vec<(String, BorrowedFd<'_>)> {
        self.kernel.iter().flat_map(KernelPath::kept_maps).collect()
    }

    /// Digest of the eBPF object whose programs all sessions use, where it is not this router's own
    /// but that of one before it.
    pub fn older_object(&self) -> Option<&str> {
        self.older_object.as_deref()
    }

    /// What was found at the start.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Takes a session over; gives it back when no worker takes it: too much waits there, or the
    /// worker has ended by a fault.
    pub fn adopt(&self, handover: Handover) -> Result<(), Box<Handover>> {
        let first = self.next.fetch_add(1, Relaxed);
        let mut handover = Box::new(handover);
        for turn in 0..self.workers.len() {
            let worker = &self.workers[first.wrapping_add(turn) % self.workers.len()];
            if !worker.is_running() {
                tracing::error!("a data path worker has ended; restart `pgs serve`");
                continue;
            }
            handover = match worker.adopt(*handover) {
                Ok(()) => return Ok(()),
                Err(handover) => handover,
            };
        }
        Err(handover)
    }

    /// Ends the sessions that these meters count.
    pub fn end<'m>(&self, meters: impl IntoIterator<Item = &'m Arc<Meter>>, reason: &CloseReason) {
        // One command however many there are: each has to have its place in a bounded queue.
        let meters = Arc::new(meters.into_iter().collect::<Meters>());
        if !meters.are_none() {
            self.tell_all(|worker| worker.end(&meters, reason));
        }
    }

    /// Ends all sessions and waits until they are closed.
    pub fn shut_down(&self, reason: &CloseReason) {
        for worker in &self.workers {
            worker.end_all(reason.clone());
        }
        for worker in &self.workers {
            worker.join();
        }
    }

    /// Bytes of a session that the verdict program redirected, live ones included.
    pub fn kernel_bytes(&self, meter: &Meter) -> KernelBytes {
        let live = match (meter.place(), &self.flows) {
            (Some(place), Some(flows)) => flows.bytes(place),
            _ => KernelBytes::default(),
        };
        let ended = meter.kernel_bytes();
        KernelBytes {
            to_backend: ended.to_backend + live.to_backend,
            to_client: ended.to_client + live.to_client,
        }
    }

    /// Times that a live session's bytes turned from the kernel to the router.
    pub fn diversions(&self, meter: &Meter) -> u32 {
        match (meter.place(), &self.flows) {
            (Some(place), Some(flows)) => flows.diversions(place),
            _ => 0,
        }
    }

    /// Time since a session last had a byte, whoever moved it.
    pub fn idle(&self, meter: &Meter) -> Duration {
        let router = meter.router_idle();
        match (meter.place(), &self.flows) {
            (Some(place), Some(flows)) => router.min(flows.idle(place)),
            _ => router,
        }
    }

    /// The account of all sessions of one owner, on which the kernel counts their bytes.
    pub fn account(&self, owner: &str) -> u32 {
        self.accounts.of(owner)
    }

    /// What the kernel has counted on each owner's account, ended sessions included.
    pub fn account_bytes(&self) -> Vec<(String, KernelBytes)> {
        let Some(flows) = &self.flows else {
            return Vec::new();
        };
        let accounts = self.accounts.all().into_iter();
        accounts
            .map(|(owner, account)| (owner, flows.account_bytes(account)))
            .collect()
    }
}

/// Whether the kernel path works here, without serving anybody.
pub fn examine() -> Findings {
    let mut findings = Findings::none_of(PathRequest::Auto);
    find(&mut findings);
    findings
}

/// The kernel path, if it is wanted and works here.
fn choose(requested: PathRequest) -> Result<(Option<KernelPath>, Findings), DataPathError> {
    let mut findings = Findings::none_of(requested);
    if requested == PathRequest::Relay {
        return Ok((None, findings));
    }
    let kernel = find(&mut findings);
    if let Some(fallback) = findings.fallback.take() {
        findings.refuse(fallback)?;
    }
    Ok((kernel, findings))
}

/// The kernel path, if it works here; what was found is written down.
fn find(findings: &mut Findings) -> Option<KernelPath> {
    let kernel = match KernelPath::load() {
        Ok(kernel) => kernel,
        Err(error) => {
            findings.fallback = Some(Fallback::from(&error));
            return None;
        }
    };
    let results = findings.canaries.insert(canary::run(&kernel));
    if let Some(failed) = results.failed().next() {
        findings.fallback = Some(Fallback::from(failed));
        return None;
    }
    findings.kernel = true;
    if let kernel::Ways::ToClientOnly(reason) = kernel.ways() {
        tracing::warn!(%reason, "only results go through the kernel here");
        findings.one_way = Some(reason.clone());
    }
    Some(kernel)
}
