//! How often, and how many at once: what one client address and one tenant's clients may do.
//!
//! Everything is remembered in tables of a fixed size ([`table`]) with many locks, each held for a
//! few dozen instructions. What the operator has not asked for costs nothing.

mod arrivals;
mod backoff;
mod rate;
mod table;

use std::net::IpAddr;
use std::sync::Arc;
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

use crate::config::sections::Limits;
use crate::protocol::refusal::Refusal;
use crate::tenant::id::TenantId;
use crate::tenant::settings::TenantSettings;

/// What is asked before a connection gets anything.
#[derive(Debug)]
pub(super) struct Admission {
    begun: Instant,
    arrivals: Option<Arc<Arrivals>>,
    connections: Option<(Rate, Table<Bucket>)>,
    cancels: Option<(Rate, Table<Bucket>)>,
    logins: Table<Bucket>,
    failures: Option<(BackOff, Table<Failures>)>,
}

/// A login under way, whose end is told to [`Admission::login_failed`], or not.
#[derive(Debug)]
pub(super) struct Attempt {
    admission: Arc<Admission>,
    key: u128,
    charge: Charge,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        let rate = |per_minute: Option<u32>, burst| {
            per_minute.map(|number| (Rate::per_minute(number, burst), Table::new()))
        };
        Self {
            begun: Instant::now(),
            arrivals: limits.address_arrivals_max.map(Arrivals::new).map(Arc::new),
            connections: rate(
                limits.address_connection_rate_per_minute,
                limits.address_connection_burst,
            ),
            cancels: rate(
                limits.address_cancel_rate_per_minute,
                limits.address_cancel_burst,
            ),
            logins: Table::new(),
            failures: BackOff::new(limits).map(|back_off| (back_off, Table::new())),
        }
    }

    /// A connection has come. What it gets is to be held until it has said what it wants.
    pub(super) fn arrive(&self, address: IpAddr) -> Result<Option<ArrivalPlace>, Refusal> {
        let client = prefix(address);
        if let Some((rate, table)) = &self.connections {
            let now = self.now();
            table
                .with(client, now, |bucket| bucket.take(*rate, now))
                .map_err(|_| Refusal::TooManyFromAddress)?;
        }
        match &self.arrivals {
            None => Ok(None),
            Some(arrivals) => match arrivals.enter(client) {
                None => Err(Refusal::TooManyFromAddress),
                place => Ok(place),
            },
        }
    }

    /// Whether a cancel request of this address is to be looked at.
    pub(super) fn may_cancel(&self, address: IpAddr) -> bool {
        let Some((rate, table)) = &self.cancels else {
            return true;
        };
        let now = self.now();
        let taken = table.with(prefix(address), now, |bucket| bucket.take(*rate, now));
        taken.is_ok()
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
        let attempt = match &self.failures {
            None => None,
            Some((back_off, table)) => {
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
        let rates = [&self.connections, &self.cancels];
        let rates = rates.into_iter().flatten();
        let failures = self.failures.as_ref();
        rates.map(|(_, table)| table.forgotten()).sum::<u64>()
            + self.logins.forgotten()
            + failures.map_or(0, |(_, table)| table.forgotten())
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn end(&self, key: u128, end: impl FnOnce(BackOff, &mut Failures, Duration)) {
        if let Some((back_off, table)) = &self.failures {
            let now = self.now();
            table.with(key, now, |failures| end(*back_off, failures, now));
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
