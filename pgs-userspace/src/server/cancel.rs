//! Which backend issued which cancel key, and delivering CancelRequests to it.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::counters::Counters;
use super::strangers;
use crate::config::limits::CANCELS_IN_FLIGHT_TENANT_PART;
use crate::config::sections::Limits;
use crate::protocol::cancel::CancelKey;
use crate::protocol::cancel::CancelRequest;
use crate::server_socket;
use crate::tenant::id::TenantId;

/// Locks of the table; sessions that begin or end at once rarely meet on one.
const SHARDS: usize = 32;

type Issued = (u32, CancelKey);

/// Whose server issued a key, and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issuer {
    pub(super) tenant: TenantId,
    pub(super) socket_directory: PathBuf,
}

/// The keys of all live sessions.
///
/// Backends of different tenants have the same process ids all the time, and with protocol 3.0 a
/// key is four bytes: should two tenants ever issue the same pair, it leads to neither of them.
#[derive(Debug)]
pub(super) struct CancelTable {
    shards: Vec<Mutex<HashMap<Issued, Vec<Issuer>>>>,
    hasher: RandomState,
    in_flight: AtomicUsize,
    in_flight_of: Mutex<HashMap<TenantId, usize>>,
    bounds: RwLock<Bounds>,
}

/// What delivering is bounded by.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    in_flight_max: usize,
    connect_deadline: Duration,
    deadline: Duration,
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        Self {
            in_flight_max: limits.cancels_in_flight_max,
            connect_deadline: limits.backend_connect_deadline,
            deadline: limits.cancel_deadline,
        }
    }
}

/// A place among the requests under way, given back when this is dropped.
#[derive(Debug)]
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A place among those of one tenant.
#[derive(Debug)]
struct InFlightOf<'a> {
    counts: &'a Mutex<HashMap<TenantId, usize>>,
    tenant: TenantId,
}

impl Drop for InFlightOf<'_> {
    fn drop(&mut self) {
        let mut counts = lock(self.counts);
        if let Some(count) = counts.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.tenant);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds one of these locks can leave its table half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CancelTable {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            hasher: RandomState::new(),
            in_flight: AtomicUsize::new(0),
            in_flight_of: Mutex::default(),
            bounds: RwLock::new(Bounds::of(limits)),
        }
    }

    /// What holds from now on.
    pub(super) fn set_limits(&self, limits: &Limits) {
        *self.bounds.write().unwrap_or_else(PoisonError::into_inner) = Bounds::of(limits);
    }

    fn bounds(&self) -> Bounds {
        *self.bounds.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more, if there is one.
    fn begin(&self, max: usize) -> Option<InFlight<'_>> {
        let before = self.in_flight.fetch_add(1, Relaxed);
        // Given back at once where it is one too many.
        let place = InFlight(&self.in_flight);
        (before < max).then_some(place)
    }

    /// One of the places that a tenant may have of so many.
    fn begin_at(&self, tenant: &TenantId, max: usize) -> Option<InFlightOf<'_>> {
        let mut counts = lock(&self.in_flight_of);
        let count = counts.entry(tenant.clone()).or_default();
        if *count >= max.div_ceil(CANCELS_IN_FLIGHT_TENANT_PART) {
            return None;
        }
        *count += 1;
        Some(InFlightOf {
            counts: &self.in_flight_of,
            tenant: tenant.clone(),
        })
    }
}

/// A registered key; dropping it takes the key out of the table.
#[derive(Debug)]
pub(super) struct Registered {
    table: Arc<CancelTable>,
    issued: Issued,
    issuer: Issuer,
}

impl CancelTable {
    /// Learns a key from BackendKeyData.
    pub(super) fn register(
        self: &Arc<Self>,
        process_id: u32,
        key: CancelKey,
        issuer: Issuer,
    ) -> Registered {
        let issued = (process_id, key);
        let mut shard = self.shard(&issued);
        shard
            .entry(issued.clone())
            .or_default()
            .push(issuer.clone());
        drop(shard);
        Registered {
            table: Arc::clone(self),
            issued,
            issuer,
        }
    }

    fn shard(&self, issued: &Issued) -> MutexGuard<'_, HashMap<Issued, Vec<Issuer>>> {
        let index = self.hasher.hash_one(issued) as usize % self.shards.len();
        lock(&self.shards[index])
    }

    /// The one server that issued this key.
    fn issuer(&self, request: &CancelRequest) -> Option<Issuer> {
        let issued = (request.process_id, request.key.clone());
        match self.shard(&issued).get(&issued).map(Vec::as_slice) {
            Some([issuer]) => Some(issuer.clone()),
            _ => None,
        }
    }

    /// Delivers a CancelRequest, if anybody issued its key and the client `may` cancel at that
    /// tenant. It gets no answer either way. The tenant that it was delivered to.
    pub(super) async fn deliver(
        &self,
        request: &CancelRequest,
        counters: &Counters,
        may: impl FnOnce(&TenantId) -> bool,
    ) -> Option<TenantId> {
        let bounds = self.bounds();
        let Some(_place) = self.begin(bounds.in_flight_max) else {
            Counters::add(&counters.cancels_dropped);
            if strangers::log_has_room("cancels_dropped") {
                tracing::warn!("a cancel request was dropped: as many are under way as may be");
            }
            return None;
        };
        let Some(issuer) = self.issuer(request) else {
            Counters::add(&counters.cancels_unknown);
            tracing::debug!(
                process_id = request.process_id,
                "a cancel key that nobody has"
            );
            return None;
        };
        if !may(&issuer.tenant) {
            Counters::add(&counters.cancels_refused);
            if strangers::log_has_room("cancels_refused") {
                tracing::info!(tenant = %issuer.tenant,
                    "a cancel request from an address not allowed");
            }
            return None;
        }
        let Some(_place) = self.begin_at(&issuer.tenant, bounds.in_flight_max) else {
            Counters::add(&counters.cancels_dropped);
            if strangers::log_has_room("cancels_dropped_at_tenant") {
                tracing::warn!(tenant = %issuer.tenant, "a cancel request was dropped: its server \
                    has ended none of those before");
            }
            return None;
        };
        let sent = send(request, &issuer.socket_directory, bounds.connect_deadline);
        match timeout(bounds.deadline, sent).await {
            Ok(Ok(())) => {
                Counters::add(&counters.cancels_routed);
                return Some(issuer.tenant);
            }
            _ if !strangers::log_has_room("cancels_not_delivered") => {}
            Ok(Err(error)) => tracing::warn!(%error, "a cancel request was not delivered"),
            Err(_) => tracing::warn!("a cancel request was not delivered in time"),
        }
        None
    }
}

/// Ends when the server has acted on the request, which is when it closes: the client takes our
/// closing as the sign that it may go on.
async fn send(request: &CancelRequest, directory: &Path, within: Duration) -> io::Result<()> {
    let mut server = server_socket::connect(directory, within).await?;
    server.write_all(&request.encode()).await?;
    let mut nothing = [0; 64];
    while server.read(&mut nothing).await? > 0 {}
    Ok(())
}

impl Registered {
    /// The key.
    pub(super) fn key(&self) -> &CancelKey {
        &self.issued.1
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut shard = self.table.shard(&self.issued);
        let Some(directories) = shard.get_mut(&self.issued) else {
            return;
        };
        if let Some(index) = directories.iter().position(|one| *one == self.issuer) {
            directories.swap_remove(index);
        }
        if directories.is_empty() {
            shard.remove(&self.issued);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::config::directories::SERVER_SOCKET_NAME;

    fn request(process_id: u32, key: &[u8]) -> CancelRequest {
        CancelRequest {
            process_id,
            key: CancelKey::new(key).unwrap(),
        }
    }

    fn issuer(tenant: &str) -> Issuer {
        Issuer {
            tenant: TenantId::parse(tenant).unwrap(),
            socket_directory: PathBuf::from("/sockets").join(tenant),
        }
    }

    #[test]
    fn a_key_leads_to_its_issuer_as_long_as_it_is_registered() {
        let table = Arc::new(CancelTable::new(&Limits::default()));
        let key = CancelKey::new(&[1, 2, 3, 4]).unwrap();
        let registered = table.register(7, key, issuer("a"));
        assert_eq!(table.issuer(&request(7, &[1, 2, 3, 4])), Some(issuer("a")));
        assert_eq!(table.issuer(&request(8, &[1, 2, 3, 4])), None);
        assert_eq!(table.issuer(&request(7, &[1, 2, 3, 5])), None);
        assert_eq!(table.issuer(&request(7, &[1, 2, 3, 4, 0])), None);
        drop(registered);
        assert_eq!(table.issuer(&request(7, &[1, 2, 3, 4])), None);
        assert!(
            table
                .shards
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }

    /// A server that has stopped takes requests, into its queue, and never ends.
    #[tokio::test]
    async fn a_server_that_never_ends_keeps_no_other_tenants_requests_back() {
        let root = tempfile::tempdir().unwrap();
        let limits = Limits {
            cancels_in_flight_max: 16,
            cancel_deadline: Duration::from_secs(30),
            ..Limits::default()
        };
        let table = Arc::new(CancelTable::new(&limits));
        let serve = |tenant: &str, key: &[u8]| {
            let directory = root.path().join(tenant);
            std::fs::create_dir(&directory).unwrap();
            let listener = UnixListener::bind(directory.join(SERVER_SOCKET_NAME)).unwrap();
            let issuer = Issuer {
                socket_directory: directory,
                ..issuer(tenant)
            };
            (
                listener,
                table.register(7, CancelKey::new(key).unwrap(), issuer),
            )
        };
        let (_stopped, _theirs) = serve("stopped", b"bad!");
        let (other, _ours) = serve("other", b"good");
        let counters = Arc::new(Counters::default());
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (table, counters) = (Arc::clone(&table), Arc::clone(&counters));
            let request = request(7, b"bad!");
            asked.spawn(async move { table.deliver(&request, &counters, |_| true).await });
        }
        // All but those that may wait have ended by themselves.
        for _ in 0..100 - 16 / CANCELS_IN_FLIGHT_TENANT_PART {
            assert_eq!(asked.join_next().await.unwrap().unwrap(), None);
        }
        assert_eq!(counters.cancels_dropped.load(Relaxed), 98);
        let ends = async {
            let (mut connection, _) = other.accept().await.unwrap();
            // All of it: closing with unread input would be a reset.
            connection.read_exact(&mut [0; 16]).await.unwrap();
        };
        let good = request(7, b"good");
        let (delivered, ()) = tokio::join!(table.deliver(&good, &counters, |_| true), ends);
        assert_eq!(delivered, Some(issuer("other").tenant));
        asked.shutdown().await;
        assert!(
            lock(&table.in_flight_of).is_empty(),
            "places are given back"
        );
        assert_eq!(table.in_flight.load(Relaxed), 0);
    }

    #[test]
    fn a_pair_that_two_tenants_issued_leads_to_neither() {
        let table = Arc::new(CancelTable::new(&Limits::default()));
        let key = CancelKey::new(&[1, 2, 3, 4]).unwrap();
        let first = table.register(7, key.clone(), issuer("a"));
        let second = table.register(7, key, issuer("b"));
        assert_eq!(table.issuer(&request(7, &[1, 2, 3, 4])), None);
        drop(first);
        assert_eq!(table.issuer(&request(7, &[1, 2, 3, 4])), Some(issuer("b")));
        drop(second);
        assert!(
            table
                .shards
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }
}
