//! The beginning of a session at a tenant's server.

use std::io;
use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::strangers;
use crate::protocol::refusal::Refusal;
use crate::server_socket;
use crate::tenant::route::Route;

/// Connects to the tenant's server and sends it the startup packet.
pub(super) async fn begin(
    route: &Route,
    packet: &[u8],
    within: Duration,
) -> Result<UnixStream, Refusal> {
    let connected = async {
        let mut backend = server_socket::connect(&route.socket_directory, within).await?;
        backend.write_all(packet).await?;
        io::Result::Ok(backend)
    };
    connected.await.map_err(|error| {
        if strangers::log_has_room("cannot_connect") {
            tracing::warn!(tenant = %route.tenant, %error, "cannot connect to the tenant's server");
        }
        match error.kind() {
            // No socket, or one that a killed server has left; a new one may be on its way.
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Refusal::TenantStopped,
            // Its queue of new connections stayed full.
            ErrorKind::WouldBlock => Refusal::TenantNotAccepting,
            // It went away in the middle.
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Refusal::BackendGone,
            _ => Refusal::RouterFault,
        }
    })
}
