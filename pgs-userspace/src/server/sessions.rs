//! The live sessions: how many there may be, and what is known of each.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;

use super::keeping::Keeping;
use super::lease::SessionLease;
use super::tenants::Happened;
use super::tenants::Tenants;
use crate::admin::request::TenantReport;
use crate::datapath::DataPath;
use crate::datapath::handover::CloseReason;
use crate::datapath::meter::Meter;
use crate::protocol::cancel::CancelKey;
use crate::protocol::refusal::Refusal;
use crate::tenant::id::TenantId;
use crate::tenant::settings::TenantSettings;

/// Locks of a table; sessions that begin or end at once rarely meet on one.
const SHARDS: usize = 32;

/// All live sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    by_id: Vec<Mutex<HashMap<u64, Arc<Session>>>>,
    of_tenant: Vec<Mutex<HashMap<TenantId, usize>>>,
    hasher: RandomState,
    next_id: AtomicU64,
    live: AtomicUsize,
    pub(super) keeping: Keeping,
    pub(super) tenants: Tenants,
    /// Held while a session's bytes become those of its tenant: they are counted once at any time.
    ending: Mutex<()>,
    /// Of these, those whose idleness is bounded.
    bounded_by_idleness: AtomicUsize,
    max: AtomicUsize,
}

/// One live session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) tenant: TenantId,
    /// Not known where TLS passes through: the login is between the client and the server.
    pub(super) user: Option<String>,
    /// As `user`.
    pub(super) database: Option<String>,
    pub(super) client: SocketAddr,
    pub(super) meter: Arc<Meter>,
    /// What its tenant is told to have had.
    pub(super) happened: Arc<Happened>,
    /// As announced in BackendKeyData; zero before.
    pub(super) backend_pid: AtomicU64,
    /// Set once the backend has announced it.
    pub(super) cancel_key: OnceLock<CancelKey>,
    /// The process that has it, where that is the router before this one.
    pub(super) elsewhere: Option<u32>,
    /// Where the tenant bounds how long it may be idle.
    pub(super) idle_timeout: Option<Duration>,
    /// Wakes what ends a session that the data path does not have.
    end: Notify,
    /// Set once, before a session is ended from outside.
    ending: OnceLock<CloseReason>,
}

impl Session {
    /// Ends the session, unless it is the data path's: a login under way, or a relay of TLS.
    fn end(&self, reason: CloseReason) {
        // The first reason is the one that counts.
        drop(self.ending.set(reason));
        self.end.notify_one();
    }

    /// How its bytes travel.
    pub(super) fn path_name(&self) -> &'static str {
        match &self.user {
            Some(_) => self.meter.path().name(),
            None => "passthrough",
        }
    }

    /// Why the session was ended from outside, if it was.
    pub(super) fn ending(&self) -> Option<&CloseReason> {
        self.ending.get()
    }

    /// Waits for the session to be ended from outside.
    pub(super) async fn ended(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.ending.get() {
                return reason.clone();
            }
            self.end.notified().await;
        }
    }
}

/// Who a new session is for.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) tenant: TenantId,
    pub(super) user: Option<String>,
    pub(super) database: Option<String>,
    pub(super) client: SocketAddr,
}

impl Sessions {
    pub(super) fn new(max: usize) -> Self {
        Self {
            by_id: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            of_tenant: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(1),
            live: AtomicUsize::new(0),
            keeping: Keeping::default(),
            tenants: Tenants::default(),
            ending: Mutex::default(),
            bounded_by_idleness: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        }
    }

    /// How many there may be from now on. Should there be more, none is ended.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// How many there are.
    pub(super) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Makes room for one more and registers it, or says why there is none. Should the tenant have
    /// more than it may have now, from before, none is ended.
    pub(super) fn begin(
        self: &Arc<Self>,
        identity: Identity,
        settings: &TenantSettings,
    ) -> Result<SessionLease, Refusal> {
        let Identity {
            tenant,
            user,
            database,
            client,
        } = identity;
        if self.live.fetch_add(1, Relaxed) >= self.max.load(Relaxed) {
            self.live.fetch_sub(1, Relaxed);
            return Err(Refusal::TooManyConnections);
        }
        {
            let mut counts = self.tenant_shard(&tenant);
            let count = counts.entry(tenant.clone()).or_default();
            if *count >= settings.connections_max {
                self.live.fetch_sub(1, Relaxed);
                return Err(Refusal::TooManyTenantConnections {
                    tenant: tenant.to_string(),
                });
            }
            *count += 1;
        }
        let id = self.next_id.fetch_add(1, Relaxed);
        let identity = Identity {
            tenant,
            user,
            database,
            client,
        };
        Ok(self.register(
            id,
            identity,
            Meter::new(),
            settings.idle_session_timeout,
            None,
        ))
    }

    /// Gives no id that is not above this one.
    pub(super) fn count_beyond(&self, id: u64) {
        self.next_id.fetch_max(id.saturating_add(1), Relaxed);
    }

    /// One that no session has, here.
    pub(super) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// Goes on with a session of another router, whatever the bounds say: it is there already.
    pub(super) fn resume(
        self: &Arc<Self>,
        id: u64,
        identity: Identity,
        meter: Meter,
        idle_timeout: Option<Duration>,
    ) -> SessionLease {
        self.make_room(id, &identity);
        self.register(id, identity, meter, idle_timeout, None)
    }

    /// Counts and lists a session that another router goes on with.
    pub(super) fn note(
        self: &Arc<Self>,
        id: u64,
        identity: Identity,
        meter: Meter,
        owner: u32,
    ) -> SessionLease {
        self.make_room(id, &identity);
        // How long it may be idle is seen to where it is.
        self.register(id, identity, meter, None, Some(owner))
    }

    fn make_room(&self, id: u64, identity: &Identity) {
        self.live.fetch_add(1, Relaxed);
        *self
            .tenant_shard(&identity.tenant)
            .entry(identity.tenant.clone())
            .or_default() += 1;
        // Ids are not used twice, also not by another router.
        self.count_beyond(id);
    }

    fn register(
        self: &Arc<Self>,
        id: u64,
        identity: Identity,
        meter: Meter,
        idle_timeout: Option<Duration>,
        elsewhere: Option<u32>,
    ) -> SessionLease {
        let session = Arc::new(Session {
            id,
            happened: self.tenants.of(&identity.tenant),
            tenant: identity.tenant,
            user: identity.user,
            database: identity.database,
            client: identity.client,
            meter: Arc::new(meter),
            backend_pid: AtomicU64::new(0),
            cancel_key: OnceLock::new(),
            elsewhere,
            idle_timeout,
            end: Notify::new(),
            ending: OnceLock::new(),
        });
        if session.idle_timeout.is_some() {
            self.bounded_by_idleness.fetch_add(1, Relaxed);
        }
        self.id_shard(id).insert(id, Arc::clone(&session));
        SessionLease::new(Arc::clone(self), session)
    }

    /// The session is over: its place is another's.
    pub(super) fn forget(&self, session: &Session) {
        {
            let _counted_once = lock(&self.ending);
            self.id_shard(session.id).remove(&session.id);
            session.happened.ended(&session.meter);
        }
        // After that, so that whoever writes its record and finds it live leaves it to this.
        self.keeping.forget(session.id);
        let mut counts = self.tenant_shard(&session.tenant);
        if let Some(count) = counts.get_mut(&session.tenant) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&session.tenant);
            }
        }
        drop(counts);
        if session.idle_timeout.is_some() {
            self.bounded_by_idleness.fetch_sub(1, Relaxed);
        }
        self.live.fetch_sub(1, Relaxed);
    }

    /// Whether it has not ended yet.
    pub(super) fn is_live(&self, id: u64) -> bool {
        self.id_shard(id).contains_key(&id)
    }

    /// Those of one tenant, or all, in the order of their ids.
    pub(super) fn list(&self, tenant: Option<&str>) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = (0..SHARDS)
            .flat_map(|shard| {
                let shard = lock(&self.by_id[shard]);
                shard.values().cloned().collect::<Vec<_>>()
            })
            .filter(|session| tenant.is_none_or(|tenant| session.tenant.as_str() == tenant))
            .collect();
        sessions.sort_unstable_by_key(|session| session.id);
        sessions
    }

    /// What happened at each tenant, and what is live there.
    pub(super) fn of_tenants(&self) -> BTreeMap<String, TenantReport> {
        let _counted_once = lock(&self.ending);
        let mut reports = self.tenants.report();
        for session in self.list(None) {
            let report = reports.entry(session.tenant.to_string()).or_default();
            let path = session.path_name().to_owned();
            *report.sessions.entry(path).or_default() += 1;
            report.router_to_backend += session.meter.relayed_to_backend();
            report.router_to_client += session.meter.relayed_to_client();
        }
        reports
    }

    /// Ends every session of a tenant, wherever it is; how many were told.
    pub(super) fn terminate(&self, tenant: &str, data_path: &DataPath) -> usize {
        let sessions = self.list(Some(tenant));
        Self::end(&sessions, &CloseReason::Terminated, data_path);
        sessions.len()
    }

    /// Ends these sessions, wherever they are.
    pub(super) fn end(sessions: &[Arc<Session>], reason: &CloseReason, data_path: &DataPath) {
        for session in sessions {
            session.end(reason.clone());
        }
        data_path.end(sessions.iter().map(|session| &session.meter), reason);
    }

    /// Those of which `is_over` says so, among the ones whose idleness is bounded. Costs nothing
    /// where there is none.
    pub(super) fn bounded_by_idleness(
        &self,
        is_over: impl Fn(&Session) -> bool,
    ) -> Vec<Arc<Session>> {
        let mut over = Vec::new();
        if self.bounded_by_idleness.load(Relaxed) == 0 {
            return over;
        }
        for shard in &self.by_id {
            let shard = lock(shard);
            let bounded = shard
                .values()
                .filter(|session| session.idle_timeout.is_some());
            over.extend(bounded.filter(|session| is_over(session)).cloned());
        }
        over
    }

    /// Ends every session that the data path does not have.
    pub(super) fn end_all(&self, reason: &CloseReason) {
        for session in self.list(None) {
            session.end(reason.clone());
        }
    }

    fn id_shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Arc<Session>>> {
        lock(&self.by_id[id as usize % SHARDS])
    }

    fn tenant_shard(&self, tenant: &TenantId) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        lock(&self.of_tenant[self.hasher.hash_one(tenant) as usize % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds one of these locks can leave its table half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
