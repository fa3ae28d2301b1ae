//! What happened at each tenant since the start.
//!
//! There are as many entries as there were tenants that a client has reached: what a stranger
//! makes up has none, so that nobody can make them more.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::admin::request::TenantReport;
use crate::datapath::meter::Meter;
use crate::protocol::refusal::Refusal;
use crate::tenant::id::TenantId;

/// The entries.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    entries: RwLock<HashMap<TenantId, Arc<Happened>>>,
}

/// What happened at one tenant.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// Sessions that began.
    pub(super) sessions: AtomicU64,
    /// Logins that its server refused.
    pub(super) logins_failed: AtomicU64,
    /// Requests to cancel that were delivered to it.
    pub(super) cancels_routed: AtomicU64,
    /// By short name; there are as many names as kinds of refusal.
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    /// Bytes that the router itself moved, of sessions that are over.
    to_backend: AtomicU64,
    to_client: AtomicU64,
}

impl Tenants {
    /// A tenant's entry. It must be one that exists.
    pub(super) fn of(&self, tenant: &TenantId) -> Arc<Happened> {
        let known = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known.get(tenant) {
            return Arc::clone(entry);
        }
        drop(known);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry(tenant.clone()).or_default())
    }

    /// All of them as they are shown, live sessions left out.
    pub(super) fn report(&self) -> BTreeMap<String, TenantReport> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let reported = entries
            .iter()
            .map(|(tenant, happened)| (tenant.to_string(), happened.report()));
        reported.collect()
    }
}

impl Happened {
    /// A client was refused.
    pub(super) fn refused(&self, refusal: &Refusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(refusal.name()).or_default() += 1;
    }

    /// A session is over, and no more among the live ones.
    pub(super) fn ended(&self, meter: &Meter) {
        self.to_backend
            .fetch_add(meter.relayed_to_backend(), Relaxed);
        self.to_client.fetch_add(meter.relayed_to_client(), Relaxed);
    }

    fn report(&self) -> TenantReport {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let refusals = refusals
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        TenantReport {
            sessions_begun: self.sessions.load(Relaxed),
            logins_failed: self.logins_failed.load(Relaxed),
            cancels_routed: self.cancels_routed.load(Relaxed),
            refusals: refusals.collect(),
            router_to_backend: self.to_backend.load(Relaxed),
            router_to_client: self.to_client.load(Relaxed),
            ..TenantReport::default()
        }
    }
}
