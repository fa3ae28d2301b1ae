//! Places of logins under way: so many of one client address to one tenant, and the others wait.

use std::net::IpAddr;
use std::sync::atomic::Ordering::SeqCst;

use tokio::time::Instant;
use tokio::time::timeout_at;

use super::Admission;
use super::ArrivalPlace;
use super::prefix;
use crate::config::limits::UNSEEN_LOGINS_FACTOR;
use crate::protocol::refusal::Refusal;
use crate::tenant::id::TenantId;

/// A place among the logins that wait, given back when this is dropped.
#[derive(Debug)]
pub(in crate::server) struct Waiting<'a>(&'a Admission);

impl Admission {
    /// A place for one more login of this address to this tenant, to be held until it is logged in.
    /// Nobody overtakes those that wait for one.
    pub(in crate::server) fn login_place(
        &self,
        address: IpAddr,
        tenant: &TenantId,
    ) -> Result<Option<ArrivalPlace>, Refusal> {
        let Some(max) = self.rules().logins_max else {
            return Ok(None);
        };
        let key = self.login_key(address, tenant);
        match self.logins_under_way.enter_in_turn(key, max) {
            None => Err(Refusal::TooManyLoginsUnderWay),
            place => Ok(place),
        }
    }

    /// The same for a login that is not seen, because its TLS passes through: it keeps the place
    /// for a while although it may be over, so that there are more of them, and none waits. Whether
    /// it fails is not seen either, nor told by how long it takes or how much it moves: instead of
    /// failures, all of them are counted.
    pub(in crate::server) fn unseen_login_place(
        &self,
        address: IpAddr,
        tenant: &TenantId,
    ) -> Result<Option<ArrivalPlace>, Refusal> {
        let place = self.unseen_place(address, tenant)?;
        if let Some(rate) = self.rules().unseen_logins {
            let (table, now) = (&self.unseen_logins, self.now());
            let key = table.key_of((prefix(address), tenant));
            let taken = table.with(key, now, |bucket| bucket.take(rate, now));
            taken.map_err(|_| Refusal::TooManyUnseenLogins)?;
        }
        Ok(place)
    }

    fn unseen_place(
        &self,
        address: IpAddr,
        tenant: &TenantId,
    ) -> Result<Option<ArrivalPlace>, Refusal> {
        let Some(max) = self.rules().logins_max else {
            return Ok(None);
        };
        let max = max.saturating_mul(UNSEEN_LOGINS_FACTOR);
        let key = self.login_key(address, tenant);
        match self.logins_under_way.enter(key, max) {
            None => Err(Refusal::TooManyLoginsUnderWay),
            place => Ok(place),
        }
    }

    fn login_key(&self, address: IpAddr, tenant: &TenantId) -> u128 {
        self.failures.key_of((prefix(address), tenant))
    }

    /// Lets one more login wait, if there is room for it.
    pub(in crate::server) fn wait(&self) -> Result<Waiting<'_>, Refusal> {
        let before = self.logins_waiting.fetch_add(1, SeqCst);
        // Given back at once where it is one too many.
        let waiting = Waiting(self);
        if before < self.rules().logins_waiting_max {
            Ok(waiting)
        } else {
            Err(Refusal::TooManyLoginsUnderWay)
        }
    }

    /// Whether any login waits.
    pub(in crate::server) fn anybody_waits(&self) -> bool {
        self.logins_waiting.load(SeqCst) > 0
    }

    /// Whoever waits is refused.
    pub(in crate::server) fn send_waiting_away(&self) {
        self.logins_under_way.send_waiting_away();
    }
}

impl Waiting<'_> {
    /// The place of its login, in the order of coming; an error where there is none by then.
    pub(in crate::server) async fn login_place(
        &self,
        address: IpAddr,
        tenant: &TenantId,
        until: Instant,
    ) -> Result<Option<ArrivalPlace>, Refusal> {
        let admission = self.0;
        let Some(max) = admission.rules().logins_max else {
            return Ok(None);
        };
        let key = admission.login_key(address, tenant);
        let place = admission.logins_under_way.wait(key, max);
        match timeout_at(until, place).await {
            Ok(Ok(place)) => Ok(Some(place)),
            _ => Err(Refusal::TooManyLoginsUnderWay),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.logins_waiting.fetch_sub(1, SeqCst);
    }
}
