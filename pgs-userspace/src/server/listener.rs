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

use super::arriving::ArrivalSeat;
use super::arriving::Arriving;
use super::arriving::Leave;
use super::connection::Accepted;
use super::connection::FrontDoor;
use super::connection::serve;
use super::counters::Counters;
use super::strangers;
use crate::config::limits::ACCEPT_RETRY_INTERVAL;
use crate::config::limits::ARRIVALS_OUTSIDE_MAX;
use crate::config::limits::LISTEN_BACKLOG_MAX;
use crate::config::sections::Limits;
use crate::tenant::id::TenantId;

/// A socket of this address, which does not listen yet.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<Socket> {
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
    Ok(socket)
}

/// From here on connections wait there.
pub(super) fn listen(socket: Socket) -> std::io::Result<TcpListener> {
    socket.listen(LISTEN_BACKLOG_MAX)?;
    TcpListener::from_std(socket.into())
}

/// Accepts for ever. A connection is taken only when few wait for a place among those that have not
/// said yet what they want.
pub(super) async fn accept(
    door: Arc<FrontDoor>,
    listener: Arc<TcpListener>,
    pinned: Option<TenantId>,
    arriving: Arc<Arriving>,
) {
    let room_outside = Arc::new(Semaphore::new(ARRIVALS_OUTSIDE_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room_outside).acquire_owned().await else {
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
        let (outside, door) = (arriving.comes(), Arc::clone(&door));
        tokio::spawn(async move {
            let entered = outside.enter().await;
            drop(permit);
            if let Some((seat, leave)) = entered {
                serve_or_leave(door, connection, seat, leave).await;
            }
        });
    }
}

/// Serves a connection, unless it has to make room for another one before it has said what it
/// wants.
async fn serve_or_leave(
    door: Arc<FrontDoor>,
    connection: Accepted,
    seat: ArrivalSeat,
    leave: Leave,
) {
    let address = connection.address;
    tokio::select! {
        biased;
        () = serve(Arc::clone(&door), connection, seat) => {}
        () = leave.told() => {
            Counters::add(&door.counters.crowded_out);
            if strangers::log_has_room("crowded_out") {
                tracing::warn!(%address, "closed a silent connection to make room for another");
            }
        }
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
