//! How a client is connected decides how its session's bytes travel once it is logged in.

use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use super::connection::FrontDoor;
use super::counters::Counters;
use super::encryption::SecureStream;
use super::lease::SessionLease;
use super::secure_relay;
use super::sessions::Session;
use crate::datapath::handover::Handover;

/// A client's connection, in the clear or encrypted.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// Whether nobody in between can read along.
    const ENCRYPTED: bool;

    /// The host name that the client asked for.
    fn server_name(&self) -> Option<&str>;

    /// The certificate that the client has shown, and those that signed it. Its key is the
    /// client's.
    fn certificates(&self) -> Option<&[CertificateDer<'static>]>;

    /// The client is logged in: from here on its bytes are only moved, those first that were read
    /// and not yet forwarded. `relayed`: why the kernel is not to move them.
    fn begin_session(
        self,
        door: &FrontDoor,
        backend: UnixStream,
        pending_to_backend: Bytes,
        relayed: Option<&'static str>,
        lease: SessionLease,
    );
}

/// The one kind of connection that becomes a [`Handover`].
impl ClientStream for TcpStream {
    const ENCRYPTED: bool = false;

    fn server_name(&self) -> Option<&str> {
        None
    }

    fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        None
    }

    fn begin_session(
        self,
        door: &FrontDoor,
        backend: UnixStream,
        pending_to_backend: Bytes,
        relayed: Option<&'static str>,
        mut lease: SessionLease,
    ) {
        drop(lease.take_login());
        let session = Arc::clone(lease.session());
        let sockets = self
            .into_std()
            .and_then(|client| Ok((client, backend.into_std()?)));
        let (client, backend) = match sockets {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::error!(session = session.id, %error, "cannot take the sockets over");
                return;
            }
        };
        announce(door, &session);
        let handover = Handover {
            client,
            backend,
            pending_to_backend,
            pending_to_client: Bytes::new(),
            account: door.data_path.account(session.tenant.as_str()),
            relayed,
            meter: Arc::clone(&session.meter),
            lease: lease.hand_over(Arc::clone(&door.data_path)),
        };
        if door.data_path.adopt(handover).is_err() {
            tracing::error!(
                session = session.id,
                "no data path worker takes the session; it is closed"
            );
        } else if let Some(reason) = session.ending() {
            // Ended between its login and its adoption, when the data path did not know it yet.
            door.data_path.end([&session.meter], reason);
        }
    }
}

impl ClientStream for SecureStream {
    const ENCRYPTED: bool = true;

    fn server_name(&self) -> Option<&str> {
        self.get_ref().1.server_name()
    }

    fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.get_ref().1.peer_certificates()
    }

    fn begin_session(
        self,
        door: &FrontDoor,
        backend: UnixStream,
        pending_to_backend: Bytes,
        _relayed: Option<&'static str>,
        mut lease: SessionLease,
    ) {
        drop(lease.take_login());
        announce(door, lease.session());
        secure_relay::begin(self, backend, &pending_to_backend, lease, None);
    }
}

/// Closing a socket with unread input resets the connection, and a reset may destroy what was just
/// sent: the client's own end comes first, if it comes soon.
pub(super) async fn finish(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> std::io::Result<()> {
    client.shutdown().await?;
    let mut unread = [0; 1024];
    while client.read(&mut unread).await? > 0 {}
    Ok(())
}

fn announce(door: &FrontDoor, session: &Session) {
    Counters::add(&door.counters.sessions);
    Counters::add(&session.happened.sessions);
    tracing::info!(
        session = session.id,
        tenant = %session.tenant,
        user = escaped(session.user.as_deref()),
        database = escaped(session.database.as_deref()),
        client = %session.client,
        backend_pid = session.backend_pid.load(std::sync::atomic::Ordering::Relaxed),
        "session begins"
    );
}

/// Names come from clients.
fn escaped(name: Option<&str>) -> Option<String> {
    name.map(|name| name.escape_debug().to_string())
}
