//! From a startup packet to a session's place: whether and where the client may log in.

use std::time::Duration;

use tokio::time::Instant;

use super::admission::ArrivalPlace;
use super::admission::Attempt;
use super::client::ClientStream;
use super::connection::Connection;
use super::entrance::Places;
use super::lease::SessionLease;
use super::routing::Hints;
use super::routing::lossy;
use super::sessions::Identity;
use super::strangers;
use super::tls_policy;
use super::tls_policy::Shown;
use crate::config::limits::LOGIN_PLACE_DEADLINE;
use crate::protocol::refusal::Refusal;
use crate::protocol::startup::StartupMessage;
use crate::tenant::id::TenantId;
use crate::tenant::route::Destination;
use crate::tenant::route::Route;

/// A tenant's superuser; it logs in only from inside its container.
const INTERNAL_ROLE: &[u8] = b"postgres";

/// What a client has that may log in.
type Admitted = (Route, SessionLease, Option<Attempt>);

/// A place among the logins under way at that tenant.
type LoginPlace = (TenantId, ArrivalPlace);

/// Why not, and whom it asked for, where there is such a tenant.
type NotAdmitted = (Refusal, Option<Meant>);

/// The tenant that a client asked for.
struct Meant {
    tenant: TenantId,
    /// Its own; `None` where it keeps the client out.
    login_deadline: Option<Duration>,
}

impl<C: ClientStream> Connection<'_, C> {
    /// Whether and where the client may log in. Who begins many logins at once waits a while for
    /// those before to end.
    pub(super) async fn admit(
        &mut self,
        message: &StartupMessage,
        places: &mut Places,
    ) -> Result<Admitted, Refusal> {
        let admitted = match self.admit_now(message, None).await {
            Err((Refusal::TooManyLoginsUnderWay, Some(meant))) => {
                self.admit_in_turn(message, places, meant).await
            }
            at_once => at_once,
        };
        admitted.map_err(|(refusal, meant)| {
            // Of a tenant that there is: nobody can make up more of them.
            if let Some(Meant { tenant, .. }) = meant {
                self.door.refused_at(&tenant, &refusal);
            }
            refusal
        })
    }

    /// Waits for a place among the logins under way, no longer than its login could take. It has
    /// said what it wants: it is none of those that make room for others.
    async fn admit_in_turn(
        &mut self,
        message: &StartupMessage,
        places: &mut Places,
        meant: Meant,
    ) -> Result<Admitted, NotAdmitted> {
        let door = self.door;
        let begun = Instant::now();
        let mut until = begun + LOGIN_PLACE_DEADLINE;
        if let Some(deadline) = meant.login_deadline {
            until = until.min(self.since + deadline);
        }
        let waiting = match door.admission.wait() {
            Ok(waiting) => waiting,
            Err(refusal) => return Err((refusal, Some(meant))),
        };
        places.leave_seat();
        let login = waiting.login_place(self.address.ip(), &meant.tenant, until);
        match login.await {
            Ok(login) => {
                self.since += begun.elapsed();
                // From the start: its access may be off by now.
                let login = login.map(|place| (meant.tenant, place));
                self.admit_now(message, login).await
            }
            Err(_) if door.is_draining() => Err((Refusal::Draining, None)),
            Err(refusal) => Err((refusal, Some(meant))),
        }
    }

    /// `login`: its place among the logins under way, where it has waited for one.
    async fn admit_now(
        &self,
        message: &StartupMessage,
        login: Option<LoginPlace>,
    ) -> Result<Admitted, NotAdmitted> {
        let Self { door, address, .. } = self;
        let (user, database) = (lossy(message.user()), lossy(message.database()));
        let nowhere = |refusal| (refusal, None);
        if door.is_draining() {
            return Err(nowhere(Refusal::Draining));
        }
        if self.rules.encryption.required && !C::ENCRYPTED {
            return Err(nowhere(Refusal::TlsRequired));
        }
        if message.user() == INTERNAL_ROLE {
            return Err(nowhere(Refusal::InternalRole { user }));
        }
        let hints = Hints {
            server_name: self.client.server_name(),
            pinned: self.pinned.as_ref(),
        };
        let routed = door.route(&self.rules, hints, message, address.ip()).await;
        let destination = routed.map_err(|error| {
            strangers::registry_failed(&error);
            nowhere(Refusal::RouterFault)
        })?;
        // That may have taken a moment.
        if door.is_draining() {
            return Err(nowhere(Refusal::Draining));
        }
        let no_access = Refusal::NoAccess {
            user,
            database,
            address: address.ip().to_canonical().to_string(),
        };
        let meant = destination.id().cloned().map(|tenant| Meant {
            tenant,
            login_deadline: destination.login_deadline(),
        });
        self.admit_to(destination, no_access, message, login)
            .map_err(|refusal| (refusal, meant))
    }

    /// The same, once it is known who is meant.
    fn admit_to(
        &self,
        destination: Destination,
        no_access: Refusal,
        message: &StartupMessage,
        login: Option<LoginPlace>,
    ) -> Result<Admitted, Refusal> {
        let Self { door, address, .. } = self;
        let route = door.let_in(destination, *address, no_access)?;
        let Route {
            tenant, settings, ..
        } = &route;
        // Before anything is charged: it may have to wait for it, and to ask again.
        let login = match login {
            Some((of, place)) if of == *tenant => Some(place),
            _ => door.admission.login_place(address.ip(), tenant)?,
        };
        let attempt = door.admission.begin_login(address.ip(), tenant, settings)?;
        let shown = Shown {
            encrypted: C::ENCRYPTED,
            certificates: self.client.certificates(),
            user: message.user(),
        };
        tls_policy::check(&route, &door.authorities, shown)?;
        let identity = Identity {
            tenant: tenant.clone(),
            user: Some(lossy(message.user())),
            database: Some(lossy(message.database())),
            client: *address,
        };
        let lease = door.sessions.begin(identity, settings)?.logging_in(login);
        Ok((route, lease, attempt))
    }
}
