//! How often, and how many at once: what one client address and one tenant's clients may do.
//!
//! Everything is remembered in tables of a fixed size ([`table`]) with many locks, each held for a
//! few dozen instructions. What the operator has not asked for costs nothing.

mod arrivals;
mod backoff;
mod logins;
mod rate;
mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use std::time::Instant;

pub(super) use arrivals::ArrivalPlace;
use arrivals::Arrivals;
use backoff::BackOff;
use backoff::Charge;
use backoff::Failures;
use rate::Bucket;
use rate::Rate;
use table::Table;

use super::budget::Budget;
use crate::config::limits::CANCEL_LOOKS_ADDRESS_MAX;
use crate::config::sections::Limits;
use crate::protocol::refusal::Refusal;
use crate::tenant::id::TenantId;
use crate::tenant::settings::TenantSettings;

/// What is asked before a connection gets anything.
#[derive(Debug)]
pub(super) struct Admission {
    begun: Instant,
    rules: RwLock<Rules>,
    arrivals: Arc<Arrivals>,
    logins_under_way: Arc<Arrivals>,
    /// Logins that wait for a place among these.
    logins_waiting: AtomicUsize,
    looks: Arc<Arrivals>,
    connections: Table<Bucket>,
    cancels: Table<Bucket>,
    logins: Table<Bucket>,
    unseen_logins: Table<Bucket>,
    failures: Table<Failures>,
}

/// What holds now; none of what the operator has not asked for.
#[derive(Debug, Clone, Copy)]
struct Rules {
    arrivals_max: Option<u32>,
    logins_max: Option<u32>,
    logins_waiting_max: usize,
    connections: Option<Rate>,
    cancels: Option<Rate>,
    unseen_logins: Option<Rate>,
    back_off: Option<BackOff>,
}

impl Rules {
    fn of(limits: &Limits, budget: Budget) -> Self {
        let rate = |per_minute: Option<u32>, burst| {
            per_minute.map(|number| Rate::per_minute(number, burst))
        };
        Self {
            arrivals_max: budget.arrivals_of_one_address(limits.address_arrivals_max),
            logins_max: limits.address_logins_max,
            logins_waiting_max: budget.waiting,
            connections: rate(
                limits.address_connection_rate_per_minute,
                limits.address_connection_burst,
            ),
            cancels: rate(
                limits.address_cancel_rate_per_minute,
                limits.address_cancel_burst,
            ),
            unseen_logins: rate(
                limits.address_unseen_login_rate_per_minute,
                limits.address_unseen_login_burst,
            ),
            back_off: BackOff::new(limits),
        }
    }
}

/// A login under way, whose end is told to [`Admission::login_failed`], or not.
#[derive(Debug)]
pub(super) struct Attempt {
    admission: Arc<Admission>,
    key: u128,
    charge: Charge,
}

impl Admission {
    pub(super) fn new(limits: &Limits, budget: Budget) -> Self {
        Self {
            begun: Instant::now(),
            rules: RwLock::new(Rules::of(limits, budget)),
            arrivals: Arc::default(),
            logins_under_way: Arc::default(),
            logins_waiting: AtomicUsize::new(0),
            looks: Arc::default(),
            connections: Table::new(),
            cancels: Table::new(),
            logins: Table::new(),
            unseen_logins: Table::new(),
            failures: Table::new(),
        }
    }

    /// What holds from now on. What was remembered stays: nobody is let off by it.
    pub(super) fn set_limits(&self, limits: &Limits, budget: Budget) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules::of(limits, budget);
    }

    fn rules(&self) -> Rules {
        *self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come. What it gets is to be held until it has said what it wants.
    pub(super) fn arrive(&self, address: IpAddr) -> Result<Option<ArrivalPlace>, Refusal> {
        let (client, rules) = (prefix(address), self.rules());
        let place = match rules.arrivals_max {
            None => None,
            Some(max) => match self.arrivals.enter(client, max) {
                None => return Err(Refusal::TooManyFromAddress),
                place => place,
            },
        };
        // Last, so that nothing is charged to whoever gets nothing.
        if let Some(rate) = rules.connections {
            let now = self.now();
            self.connections
                .with(client, now, |bucket| bucket.take(rate, now))
                .map_err(|_| Refusal::TooManyFromAddress)?;
        }
        Ok(place)
    }

    /// Whether one more connection is looked at of an address that is beyond its bounds: it may be
    /// for a cancel request.
    pub(super) fn look(&self, address: IpAddr) -> Option<ArrivalPlace> {
        self.looks.enter(prefix(address), CANCEL_LOOKS_ADDRESS_MAX)
    }

    /// Whether a cancel request of this address is to be looked at.
    pub(super) fn may_cancel(&self, address: IpAddr) -> bool {
        let Some(rate) = self.rules().cancels else {
            return true;
        };
        let (client, now) = (prefix(address), self.now());
        let taken = self
            .cancels
            .with(client, now, |bucket| bucket.take(rate, now));
        taken.is_ok()
    }

    /// A connection turned out to be for a cancel request that named a session. Its client has that
    /// session, and the request counted by a rate of its own: it is none of the connections by
    /// which an address is bounded.
    pub(super) fn was_a_cancel(&self, address: IpAddr) {
        if let Some(rate) = self.rules().connections {
            let (client, now) = (prefix(address), self.now());
            self.connections
                .with(client, now, |bucket| bucket.put_back(rate));
        }
    }

    /// Whether one more client of this address may try to log in to this tenant, which exists and
    /// lets this address in.
    pub(super) fn begin_login(
        self: &Arc<Self>,
        address: IpAddr,
        tenant: &TenantId,
        settings: &TenantSettings,
    ) -> Result<Option<Attempt>, Refusal> {
        let now = self.now();
        let attempt = match self.rules().back_off {
            None => None,
            Some(back_off) => {
                let table = &self.failures;
                let key = table.key_of((prefix(address), tenant));
                let begun = table.with(key, now, |failures| back_off.begin(failures, now));
                let charge = begun.map_err(|wait| Refusal::TooManyFailedLogins {
                    seconds: rounded_up(wait),
                })?;
                Some(Attempt {
                    admission: Arc::clone(self),
                    key,
                    charge,
                })
            }
        };
        if let Some(number) = settings.connection_rate_per_minute {
            let rate = Rate::per_minute(number, settings.connection_burst);
            let key = self.logins.key_of(tenant);
            let taken = self.logins.with(key, now, |bucket| bucket.take(rate, now));
            taken.map_err(|_| Refusal::TooManyLogins {
                tenant: tenant.to_string(),
            })?;
        }
        Ok(attempt)
    }

    /// How many were forgotten before their time, in all tables.
    pub(super) fn forgotten(&self) -> u64 {
        let rates = [
            &self.connections,
            &self.cancels,
            &self.logins,
            &self.unseen_logins,
        ];
        rates.into_iter().map(Table::forgotten).sum::<u64>() + self.failures.forgotten()
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn end(&self, key: u128, end: impl FnOnce(BackOff, &mut Failures, Duration)) {
        if let Some(back_off) = self.rules().back_off {
            let now = self.now();
            self.failures
                .with(key, now, |failures| end(back_off, failures, now));
        }
    }
}

impl Attempt {
    /// The tenant's server has found the client out.
    pub(super) fn failed(mut self) {
        // What was charged for it stays.
        self.charge = Charge::default();
        self.admission.end(self.key, |back_off, failures, now| {
            back_off.failed(failures, now);
        });
    }
}

/// However it ended otherwise: nobody was found out.
impl Drop for Attempt {
    fn drop(&mut self) {
        let Self {
            admission,
            key,
            charge,
        } = self;
        if *charge != Charge::default() {
            admission.end(*key, |_, failures, now| {
                BackOff::take_back(failures, *charge, now);
            });
        }
    }
}

/// What counts as one client: an IPv4 address, or the first 64 bits of an IPv6 address, since a
/// network is given at least all that begin with these (RFC 6177).
fn prefix(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & !u128::from(u64::MAX),
    }
}

fn rounded_up(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
