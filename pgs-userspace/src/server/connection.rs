//! One connection, from accept to handover, refusal or close.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

use super::backend;
use super::cancel::CancelTable;
use super::counters::Counters;
use super::login::Login;
use super::login::LoginEnd;
use super::negotiation::Negotiated;
use super::negotiation::negotiate;
use super::sessions::Identity;
use super::sessions::SessionLease;
use super::sessions::Sessions;
use crate::config::limits::CLOSE_LINGER;
use crate::config::limits::LOGIN_DEADLINE;
use crate::datapath::DataPath;
use crate::datapath::handover::Handover;
use crate::protocol::refusal::Refusal;
use crate::protocol::startup::StartupMessage;
use crate::tenant::registry::RegistryError;
use crate::tenant::route::Access;
use crate::tenant::route::Route;
use crate::tenant::route::RouteTable;

/// A tenant's superuser; it logs in only from inside its container.
const INTERNAL_ROLE: &[u8] = b"postgres";

/// What every connection uses.
#[derive(Debug)]
pub(super) struct FrontDoor {
    pub(super) routes: RouteTable,
    pub(super) sessions: Arc<Sessions>,
    pub(super) cancels: Arc<CancelTable>,
    pub(super) counters: Counters,
    pub(super) data_path: Arc<DataPath>,
    pub(super) draining: std::sync::atomic::AtomicBool,
}

/// Serves one connection up to its handover. `permit` bounds how many are at this stage.
pub(super) async fn serve(
    door: Arc<FrontDoor>,
    mut client: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let deadline = Instant::now() + LOGIN_DEADLINE;
    Counters::add(&door.counters.accepted);
    let negotiated = match timeout_at(deadline, negotiate(&mut client)).await {
        Ok(Ok(negotiated)) => negotiated,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "connection failed before its startup packet");
            return;
        }
        Err(_) => Negotiated::Malformed("no startup packet within the deadline".into()),
    };
    match negotiated {
        Negotiated::Session(message, rest) => {
            let ended = Connection {
                door: &door,
                client,
                address,
                deadline,
            }
            .log_in(&message, rest)
            .await;
            if let Err((client, refusal)) = ended {
                refuse(&door, client, address, &refusal).await;
            }
        }
        Negotiated::Cancel(request) => {
            // It needs no place among the logins: cancels have a budget of their own.
            drop(permit);
            door.cancels.deliver(&request, &door.counters).await;
        }
        Negotiated::Silent => Counters::add(&door.counters.silent),
        Negotiated::Malformed(why) => {
            Counters::add(&door.counters.malformed);
            tracing::info!(%address, why, "not a startup packet; closed");
        }
        Negotiated::Refused(refusal) => refuse(&door, client, address, &refusal).await,
    }
}

/// Says why not, and closes so that the client gets to read it.
async fn refuse(door: &FrontDoor, mut client: TcpStream, address: SocketAddr, refusal: &Refusal) {
    door.counters.refused(refusal);
    tracing::info!(
        %address,
        sqlstate = %refusal.sqlstate(),
        refusal = refusal.name(),
        "connection refused"
    );
    let farewell = async {
        client.write_all(&refusal.encode()).await?;
        finish(&mut client).await
    };
    // The client may be gone: there is nobody left to tell.
    timeout(CLOSE_LINGER, farewell).await.ok();
}

/// Closing a socket with unread input resets the connection, and a reset may destroy what was just
/// sent: the client's own end comes first, if it comes soon.
async fn finish(client: &mut TcpStream) -> std::io::Result<()> {
    client.shutdown().await?;
    let mut unread = [0; 1024];
    while client.read(&mut unread).await? > 0 {}
    Ok(())
}

/// A client that has sent its startup packet.
struct Connection<'a> {
    door: &'a FrontDoor,
    client: TcpStream,
    address: SocketAddr,
    deadline: Instant,
}

impl Connection<'_> {
    /// Finds the tenant, logs the client in there, hands the session over. A refusal comes back
    /// with the client that is to be told.
    async fn log_in(
        self,
        message: &StartupMessage,
        rest: BytesMut,
    ) -> Result<(), (TcpStream, Refusal)> {
        let (route, lease) = match self.admit(message) {
            Ok(admitted) => admitted,
            Err(refusal) => return Err((self.client, refusal)),
        };
        let session = Arc::clone(lease.session());
        let work = self.log_in_to(&route, lease, message, rest);
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => result,
            // Access was disabled meanwhile. Whatever the login has reached, it ends here.
            () = session.end_login.notified() => Ok(()),
        }
    }

    /// Whether and where the client may log in.
    fn admit(&self, message: &StartupMessage) -> Result<(Route, SessionLease), Refusal> {
        let Self { door, address, .. } = self;
        let user = String::from_utf8_lossy(message.user()).into_owned();
        let database = String::from_utf8_lossy(message.database()).into_owned();
        if door.draining.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Refusal::Draining);
        }
        if message.user() == INTERNAL_ROLE {
            return Err(Refusal::InternalRole { user });
        }
        let route = self.route(message, &user, &database).map_err(|error| {
            tracing::error!(%error, "the registry cannot be read");
            Refusal::RouterFault
        })?;
        let Some(route) = route.filter(|route| route.access == Access::Enabled) else {
            return Err(Refusal::NoAccess { user, database });
        };
        let tenant = route.tenant.clone();
        let identity = Identity {
            tenant,
            user,
            database,
            client: *address,
        };
        let lease = door.sessions.begin(identity)?;
        Ok((route, lease))
    }

    /// The tenant called like the user, else like the database, else like the option says.
    fn route(
        &self,
        message: &StartupMessage,
        user: &str,
        database: &str,
    ) -> Result<Option<Route>, RegistryError> {
        let routes = &self.door.routes;
        match (routes.find(user, database)?, message.tenant_option()) {
            (None, Some(tenant)) => {
                let tenant = String::from_utf8_lossy(&tenant);
                routes.find(&tenant, &tenant)
            }
            (found, _) => Ok(found),
        }
    }

    async fn log_in_to(
        self,
        route: &Route,
        mut lease: SessionLease,
        message: &StartupMessage,
        rest: BytesMut,
    ) -> Result<(), (TcpStream, Refusal)> {
        let Self {
            door,
            mut client,
            address,
            deadline,
        } = self;
        let mut backend = match connect(route, message).await {
            Ok(backend) => backend,
            Err(refusal) => return Err((client, refusal)),
        };
        let mut login = Login::new(rest);
        let ended = timeout_at(deadline, login.run(&mut client, &mut backend)).await;
        let meter = &lease.session().meter;
        meter.add_to_backend(message.raw().len() + login.to_backend_bytes);
        meter.add_to_client(login.to_client_bytes);
        let session = lease.session().id;
        match ended {
            Ok(Ok(LoginEnd::Ready)) => {
                if let Some((process_id, key)) = login.key.take() {
                    lease
                        .session()
                        .backend_pid
                        .store(process_id.into(), RELAXED);
                    let directory = route.socket_directory.clone();
                    lease.learn_key(door.cancels.register(process_id, key, directory));
                }
                hand_over(door, client, backend, login.held.freeze(), lease);
                Ok(())
            }
            Ok(Ok(LoginEnd::Refused(sqlstate, text))) => {
                Counters::add(&door.counters.login_failed);
                let sqlstate = sqlstate.map(|state| state.to_string()).unwrap_or_default();
                tracing::info!(session, %address, tenant = %route.tenant, sqlstate, text,
                    "login refused by the backend");
                timeout(CLOSE_LINGER, finish(&mut client)).await.ok();
                Ok(())
            }
            Ok(Ok(LoginEnd::BackendGone)) => Err((client, Refusal::BackendGone)),
            Ok(Ok(LoginEnd::ClientGone)) => Ok(()),
            Ok(Ok(LoginEnd::Nonsense(error))) => {
                tracing::error!(session, tenant = %route.tenant, %error, "backend out of step");
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::debug!(session, %address, %error, "connection failed during the login");
                Ok(())
            }
            Err(_) => Err((client, Refusal::LoginDeadline)),
        }
    }
}

const RELAXED: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Relaxed;

/// Connects to the tenant's server and sends it the startup packet, byte for byte.
async fn connect(route: &Route, message: &StartupMessage) -> Result<UnixStream, Refusal> {
    let connected = async {
        let mut backend = backend::connect(&route.socket_directory).await?;
        backend.write_all(message.raw()).await?;
        std::io::Result::Ok(backend)
    };
    connected.await.map_err(|error| {
        tracing::warn!(tenant = %route.tenant, %error, "cannot connect to the tenant's server");
        Refusal::TenantStarting
    })
}

fn hand_over(
    door: &FrontDoor,
    client: TcpStream,
    backend: UnixStream,
    pending_to_backend: Bytes,
    lease: SessionLease,
) {
    let session = Arc::clone(lease.session());
    let sockets = client
        .into_std()
        .and_then(|client| Ok((client, backend.into_std()?)));
    let (client, backend) = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            tracing::error!(session = session.id, %error, "cannot take the sockets over");
            return;
        }
    };
    Counters::add(&door.counters.sessions);
    tracing::info!(
        session = session.id,
        tenant = %session.tenant,
        user = session.user.escape_debug().to_string(),
        database = session.database.escape_debug().to_string(),
        client = %session.client,
        backend_pid = session.backend_pid.load(RELAXED),
        "session begins"
    );
    let handover = Handover {
        client,
        backend,
        pending_to_backend,
        pending_to_client: Bytes::new(),
        meter: Arc::clone(&session.meter),
        lease: lease.hand_over(Arc::clone(&door.data_path)),
    };
    if door.data_path.adopt(handover).is_err() {
        tracing::error!(
            session = session.id,
            "the data path is flooded; session closed"
        );
    } else if session.terminated.load(RELAXED) {
        // Terminated between its login and its adoption, when the data path did not know it yet.
        door.data_path.end(
            &session.meter,
            &crate::datapath::handover::CloseReason::Terminated,
        );
    }
}
