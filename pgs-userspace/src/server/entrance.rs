//! Whom the front door lets in: from where, and how often.

use std::io::Read as _;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::admission::ArrivalPlace;
use super::arriving::ArrivalSeat;
use super::client::ClientStream;
use super::client::finish;
use super::connection::FrontDoor;
use super::counters::Counters;
use super::sessions::Session;
use super::strangers;
use crate::config::limits::CLOSE_LINGER;
use crate::config::limits::TURNED_AWAY_READ_BYTES;
use crate::datapath::handover::CloseReason;
use crate::protocol::cancel::CancelRequest;
use crate::protocol::refusal::Refusal;
use crate::protocol::sqlstate::SqlState;
use crate::tenant::id::TenantId;
use crate::tenant::route::Destination;
use crate::tenant::route::Route;

/// Held by a connection that has not said yet what it wants: its places in all, and of its address.
#[derive(Debug)]
pub(super) struct Places {
    of_all: Option<ArrivalSeat>,
    of_address: Option<ArrivalPlace>,
}

impl Places {
    /// Gives back the one in all. The one of its address counts until the login has ended.
    pub(super) fn leave_seat(&mut self) {
        self.of_all = None;
    }

    /// The same; the one of its address is kept on elsewhere.
    pub(super) fn of_address(self) -> Option<ArrivalPlace> {
        self.of_address
    }
}

impl FrontDoor {
    /// A place of its address beside the one that a connection has already, which comes back where
    /// there is none.
    pub(super) fn arrive(
        &self,
        address: SocketAddr,
        of_all: ArrivalSeat,
    ) -> Result<Places, (ArrivalSeat, Refusal)> {
        match self.admission.arrive(address.ip()) {
            Ok(of_address) => Ok(Places {
                of_all: Some(of_all),
                of_address,
            }),
            Err(refusal) => Err((of_all, refusal)),
        }
    }

    /// Tells a client that there is no room for it, and does not wait for anything: there may be
    /// thousands of them.
    pub(super) fn turn_away(&self, client: &TcpStream, address: SocketAddr, refusal: &Refusal) {
        self.counters.refused(refusal);
        tracing::debug!(%address, refusal = refusal.name(), "connection turned away");
        // Closing with unread input would reset the connection. What has not come yet may still do
        // so; the client has the answer by then, or does without.
        let mut unread = [0; TURNED_AWAY_READ_BYTES];
        // On the socket itself: the runtime does not know yet whether it is ready.
        let socket = SockRef::from(client);
        drop((&*socket).read(&mut unread));
        drop(socket.send(&refusal.encode()));
    }

    /// Says why not, and closes so that the client gets to read it.
    pub(super) async fn refuse(
        &self,
        mut client: impl ClientStream,
        address: SocketAddr,
        refusal: &Refusal,
    ) {
        self.counters.refused(refusal);
        if strangers::log_has_room(refusal.name()) {
            tracing::info!(
                %address,
                sqlstate = %refusal.sqlstate(),
                refusal = refusal.name(),
                "connection refused"
            );
        }
        // So many clients at once may take their time to read it.
        let lingering = self.farewells.try_acquire();
        let farewell = async {
            client.write_all(&refusal.encode()).await?;
            match &lingering {
                Ok(_) => finish(&mut client).await,
                Err(_) => client.shutdown().await,
            }
        };
        // The client may be gone: there is nobody left to tell.
        timeout(CLOSE_LINGER, farewell).await.ok();
    }

    /// Closed without a word.
    pub(super) fn not_a_packet(&self, address: SocketAddr, why: &str) {
        Counters::add(&self.counters.malformed);
        if strangers::log_has_room("malformed") {
            tracing::info!(%address, why, "not a startup packet; closed");
        }
    }

    /// The tenant's server has told the client so itself.
    pub(super) fn login_refused(&self, session: &Session, sqlstate: Option<SqlState>, text: &str) {
        Counters::add(&self.counters.login_failed);
        Counters::add(&session.happened.logins_failed);
        if strangers::log_has_room("login_failed") {
            tracing::info!(
                session = session.id,
                address = %session.client,
                tenant = %session.tenant,
                sqlstate = sqlstate.map(|state| state.to_string()).unwrap_or_default(),
                text,
                "login refused by the backend"
            );
        }
    }

    /// Counts a refusal at a tenant that there is.
    pub(super) fn refused_at(&self, tenant: &TenantId, refusal: &Refusal) {
        self.sessions.tenants.of(tenant).refused(refusal);
    }

    /// Delivers a request to cancel, if its client may; whether it did.
    pub(super) async fn cancel(&self, request: &CancelRequest, address: SocketAddr) -> bool {
        if !self.admission.may_cancel(address.ip()) {
            Counters::add(&self.counters.cancels_limited);
            tracing::debug!(%address, "a cancel request beyond the rate of its address");
            return false;
        }
        let may = |tenant: &TenantId| match self.routes.settings(tenant) {
            Ok(settings) => settings.allows(address.ip()),
            Err(error) => {
                strangers::registry_failed(&error);
                false
            }
        };
        let delivered = self.cancels.deliver(request, &self.counters, may).await;
        if let Some(tenant) = &delivered {
            Counters::add(&self.sessions.tenants.of(tenant).cancels_routed);
        }
        delivered.is_some()
    }

    /// The tenant that a client is let in to. Whatever keeps it out, it is told the same; the log
    /// knows more.
    pub(super) fn let_in(
        &self,
        destination: Destination,
        address: SocketAddr,
        no_access: Refusal,
    ) -> Result<Route, Refusal> {
        let why_not = match destination {
            Destination::Tenant(route) => return Ok(route),
            Destination::KeptOut(kept_out) => kept_out.why.text(),
            Destination::Unknown => "there is no such tenant",
        };
        if strangers::log_has_room("kept_out") {
            let what = no_access
                .error_response()
                .message
                .escape_debug()
                .to_string();
            tracing::info!(%address, what, why_not, "kept out");
        }
        Err(no_access)
    }
}

/// What a client is told whose login is ended from outside.
pub(super) fn farewell(reason: &CloseReason) -> Refusal {
    match reason {
        CloseReason::Shutdown => Refusal::RouterEnding,
        _ => Refusal::Terminated,
    }
}
