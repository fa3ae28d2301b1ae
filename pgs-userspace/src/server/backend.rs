//! Connecting to a tenant's server over its Unix socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::config::limits::BACKEND_CONNECT_DEADLINE;
use crate::config::limits::BACKEND_CONNECT_RETRY_INTERVAL_MAX;
use crate::config::limits::BACKEND_CONNECT_RETRY_INTERVAL_MIN;

/// The server's socket within its directory: the port is part of the name, and inside a container
/// it is always the default one.
pub(super) const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Connects. A server whose queue of new connections is full is asked again until the deadline.
pub(super) async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + BACKEND_CONNECT_DEADLINE;
    let path = directory.join(SOCKET_NAME);
    let mut pause: Duration = BACKEND_CONNECT_RETRY_INTERVAL_MIN;
    loop {
        match UnixStream::connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() + pause > deadline {
                    return Err(error);
                }
                sleep(pause).await;
                pause = (pause * 2).min(BACKEND_CONNECT_RETRY_INTERVAL_MAX);
            }
            other => return other,
        }
    }
}
