//! Listening sockets, and taking connections off them.

use std::net::SocketAddr;
use std::sync::Arc;

use socket2::Domain;
use socket2::Protocol;
use socket2::SockRef;
use socket2::Socket;
use socket2::TcpKeepalive;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::connection::Accepted;
use super::connection::FrontDoor;
use super::connection::serve;
use super::strangers;
use crate::config::limits::ACCEPT_RETRY_INTERVAL;
use crate::config::limits::LISTEN_BACKLOG_MAX;
use crate::config::sections::Limits;
use crate::tenant::id::TenantId;

/// Binds and listens.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` can then be listened on side by side.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG_MAX)?;
    TcpListener::from_std(socket.into())
}

/// Accepts for ever. A connection is taken only when there is room for one more that has not said
/// yet what it wants.
pub(super) async fn accept(
    door: Arc<FrontDoor>,
    listener: Arc<TcpListener>,
    pinned: Option<TenantId>,
    arrivals: Arc<Semaphore>,
) {
    loop {
        let Ok(permit) = Arc::clone(&arrivals).acquire_owned().await else {
            return;
        };
        let (client, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if strangers::log_has_room("accept_failed") {
                    tracing::warn!(%error, "accept failed");
                }
                sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            }
        };
        if let Err(error) = prepare(&client, &door.live.rules().configuration.limits) {
            // The client has gone already: the next step would find out the same.
            tracing::debug!(%address, %error, "a socket option was refused");
        }
        let connection = Accepted {
            client,
            address,
            pinned: pinned.clone(),
        };
        tokio::spawn(serve(Arc::clone(&door), connection, permit));
    }
}

/// A dead peer is found out, and a small answer is not held back.
fn prepare(client: &TcpStream, limits: &Limits) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let socket = SockRef::from(client);
    let keepalive = TcpKeepalive::new()
        .with_time(limits.client_keepalive_idle)
        .with_interval(limits.client_keepalive_interval)
        .with_retries(limits.client_keepalive_probes);
    socket.set_tcp_keepalive(&keepalive)?;
    match limits.client_user_timeout {
        // Off unless asked for: by it the kernel counts a client that does not read as gone,
        // although the client answers every probe.
        None => Ok(()),
        timeout => socket.set_tcp_user_timeout(timeout),
    }
}
