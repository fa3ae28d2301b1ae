//! A connection that asked for TLS: who ends it, and the handshake.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::connection::Arrival;
use super::connection::FrontDoor;
use super::connection::late;
use super::counters::Counters;
use super::encryption::ClientCertificateRequest;
use super::lease::SessionLease;
use super::live::Rules;
use super::negotiation::TlsRequest;
use super::negotiation::negotiate_encrypted;
use super::passthrough;
use super::secure_relay;
use super::secure_relay::ResetIsEnd;
use super::sessions::Identity;
use super::strangers;
use super::unseen_login::Places as LoginPlaces;
use super::unseen_login::UnseenLogin;
use crate::config::limits::CLIENT_HELLO_BYTES_MAX;
use crate::config::limits::CLIENT_HELLO_READ_BYTES;
use crate::config::limits::SERVER_NAME_ANSWER_DELAY;
use crate::protocol::refusal::Refusal;
use crate::tenant::id::TenantId;
use crate::tenant::route::Route;
use crate::tenant::settings::TlsPolicy;
use crate::tenant::tls_wishes::TlsWishes;
use crate::tls::client_hello::ClientHelloReader;
use crate::tls::client_hello::ClientHelloState;

/// Who ends a client's TLS.
enum TlsEnd {
    /// This process; and what the client is then to be told, if it is refused already.
    Here(Option<Refusal>),
    /// The tenant's own server.
    There(TcpStream, SessionLease),
}

impl Arrival<'_> {
    /// The ClientHello, and where it leads. `front` was read from the client already.
    pub(super) async fn encrypt(
        self,
        mut client: TcpStream,
        request: TlsRequest,
        mut front: BytesMut,
    ) {
        let (door, address) = (self.door, self.address);
        let failed = |error: &dyn Display| door.no_tls(address, error);
        let name = match timeout_at(self.deadline(), read_hello(&mut client, &mut front)).await {
            Ok(Ok(name)) => name,
            Ok(Err(error)) => return failed(&error),
            Err(_) => return failed(&"no ClientHello within the deadline"),
        };
        match self.tls_end(name.as_deref(), request).await {
            TlsEnd::There(server, lease) => self.pass_through(client, server, &front, lease),
            TlsEnd::Here(refusal) => self.terminate(client, request, front, refusal).await,
        }
    }

    /// The handshake, and what the client says once it is encrypted.
    async fn terminate(
        mut self,
        client: TcpStream,
        request: TlsRequest,
        front: BytesMut,
        refusal: Option<Refusal>,
    ) {
        let (door, address, deadline) = (self.door, self.address, self.deadline());
        self.refusal = refusal;
        let rules = Arc::clone(&self.rules);
        let handshake = rules
            .encryption
            .accept(client, request, front, self.certificates());
        let mut client = match timeout_at(deadline, handshake).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return door.no_tls(address, &error),
            Err(_) => return door.no_tls(address, &"no handshake within the deadline"),
        };
        Counters::add(&door.counters.tls_handshakes);
        match timeout_at(deadline, negotiate_encrypted(&mut client, request)).await {
            Ok(Ok(negotiated)) => self.serve(client, negotiated).await,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "connection failed before its startup packet");
            }
            Err(_) => self.serve(client, late()).await,
        }
    }

    /// Everybody is asked, whatever name they ask for, or the question would tell which tenants
    /// want an answer.
    fn certificates(&self) -> ClientCertificateRequest {
        if self.door.tls_wishes().client_certificates {
            ClientCertificateRequest::Optional
        } else {
            ClientCertificateRequest::None
        }
    }

    /// Only a server name, or the listener, can lead to a tenant before anything is decrypted.
    /// Where it leads to none, to one that does not let this client in, or to one that has no TLS
    /// of its own, the same is done after the same time.
    async fn tls_end(&self, name: Option<&str>, request: TlsRequest) -> TlsEnd {
        let label = name.and_then(|name| self.rules.encryption.tenant_label(name));
        // What comes encrypted to a listener for one tenant can name no other to begin with.
        let Some(label) = label.or(self.pinned.as_ref().map(TenantId::as_str)) else {
            return TlsEnd::Here(None);
        };
        let asked = Instant::now();
        let found = self.door.routes.find(label, label, self.address.ip());
        let destination = match found {
            Ok(destination) => destination,
            Err(error) => {
                strangers::registry_failed(&error);
                return TlsEnd::Here(Some(Refusal::RouterFault));
            }
        };
        let passes = |route: &Route| route.settings.tls == TlsPolicy::Passthrough;
        let Some(route) = destination.tenant().filter(passes) else {
            // Also where nobody's TLS passes through: what the look-up took shows by itself.
            let at = asked + SERVER_NAME_ANSWER_DELAY;
            self.door.punctual.sleep_until(at).await;
            return TlsEnd::Here(None);
        };
        match self.connect_through(&route, request).await {
            Ok((server, lease)) => TlsEnd::There(server, lease),
            Err(refusal) => {
                self.door.refused_at(&route.tenant, &refusal);
                // Told behind a handshake with a certificate of ours, if there is one.
                if strangers::log_has_room("not_passed_through") {
                    tracing::info!(address = %self.address, tenant = %route.tenant,
                        refusal = refusal.name(), "TLS is not passed through");
                }
                TlsEnd::Here(Some(refusal))
            }
        }
    }

    /// A place for the session, and the way to the tenant's server.
    async fn connect_through(
        &self,
        route: &Route,
        request: TlsRequest,
    ) -> Result<(TcpStream, SessionLease), Refusal> {
        let door = self.door;
        if door.is_draining() {
            return Err(Refusal::Draining);
        }
        // Whether the login fails is not seen: nothing is charged for it, but that it is one.
        let (ip, settings) = (self.address.ip(), &route.settings);
        let login = door.admission.unseen_login_place(ip, &route.tenant)?;
        drop(door.admission.begin_login(ip, &route.tenant, settings)?);
        let identity = Identity {
            tenant: route.tenant.clone(),
            user: None,
            database: None,
            client: self.address,
        };
        let lease = door.sessions.begin(identity, settings)?.logging_in(login);
        let directory = &route.socket_directory;
        let within = self.rules.configuration.limits.backend_connect_deadline;
        let server = passthrough::connect(&door.namespaces, directory, request, within).await;
        let server = server.map_err(|error| {
            let tenant = &route.tenant;
            if strangers::log_has_room("passthrough_unavailable_why") {
                tracing::warn!(%tenant, %error, "cannot pass TLS through to the tenant's server");
            }
            match error.is_not_listening() {
                true => Refusal::PassthroughNotListening,
                false => Refusal::PassthroughUnavailable,
            }
        })?;
        Ok((server, lease))
    }

    /// From here on the bytes are only moved.
    fn pass_through(
        self,
        client: TcpStream,
        server: TcpStream,
        hello: &[u8],
        mut lease: SessionLease,
    ) {
        // The session's place counts from here on; the others until it is logged in.
        let unseen = UnseenLogin::new(LoginPlaces {
            _of_login: lease.take_login(),
            _of_address: self.places.of_address(),
        });
        let session = lease.session();
        Counters::add(&self.door.counters.sessions);
        Counters::add(&session.happened.sessions);
        Counters::add(&self.door.counters.tls_passed_through);
        // No password was asked for yet.
        if strangers::log_has_room("unseen_session_begins") {
            tracing::info!(
                session = session.id,
                tenant = %session.tenant,
                client = %session.client,
                "session begins, its TLS passed through"
            );
        }
        secure_relay::begin(ResetIsEnd(client), server, hello, lease, Some(unseen));
    }
}

impl FrontDoor {
    /// Whether a client that asks for TLS gets it: from here, or from a tenant's own server.
    /// `pinned` where the listener leads to a tenant without a server name.
    pub(super) async fn offers_tls(&self, rules: &Rules, pinned: bool) -> bool {
        rules.encryption.has_certificate().await
            || (pinned || rules.encryption.has_domains()) && self.tls_wishes().passthrough
    }

    /// Closed without a word that the client could read.
    fn no_tls(&self, address: SocketAddr, error: &dyn Display) {
        Counters::add(&self.counters.tls_failed);
        if strangers::log_has_room("no_tls") {
            tracing::info!(%address, %error, "no TLS; closed");
        }
    }

    /// What tenants want of TLS.
    pub(super) fn tls_wishes(&self) -> TlsWishes {
        self.routes.tls_wishes().unwrap_or_else(|error| {
            strangers::registry_failed(&error);
            TlsWishes::default()
        })
    }

    /// Whether there are no new sessions any more.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

/// Reads until the ClientHello is complete; the host name that it asks for. What is read stays in
/// `front`. Not cancel safe.
async fn read_hello(client: &mut TcpStream, front: &mut BytesMut) -> io::Result<Option<String>> {
    let mut reader = ClientHelloReader::default();
    let mut state = reader.read(front);
    loop {
        match state {
            ClientHelloState::Complete(name) => return Ok(name),
            // The handshake will say what is wrong with it.
            ClientHelloState::Unreadable => return Ok(None),
            ClientHelloState::TooLong => {
                let why = format!("ClientHello of more than {CLIENT_HELLO_BYTES_MAX} bytes");
                return Err(io::Error::other(why));
            }
            ClientHelloState::Incomplete => {}
        }
        let read_before = front.len();
        front.reserve(CLIENT_HELLO_READ_BYTES);
        if client.read_buf(front).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state = reader.read(&front[read_before..]);
    }
}
