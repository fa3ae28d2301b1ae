//! Connecting to a tenant's server over its Unix socket.

use std::io;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstat;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio::time::sleep;

use super::strangers;
use crate::config::directories::SERVER_SOCKET_NAME;
use crate::config::limits::BACKEND_CONNECT_RETRY_INTERVAL_MAX;
use crate::config::limits::BACKEND_CONNECT_RETRY_INTERVAL_MIN;
use crate::protocol::refusal::Refusal;
use crate::tenant::route::Route;

/// Connects. A server whose queue of new connections is full is asked again until the deadline.
pub(super) async fn connect(directory: &Path, within: Duration) -> io::Result<UnixStream> {
    let deadline = Instant::now() + within;
    let path = directory.join(SERVER_SOCKET_NAME);
    let mut pause: Duration = BACKEND_CONNECT_RETRY_INTERVAL_MIN;
    let socket = pin(&path)?;
    let pinned = format!("/proc/self/fd/{}", socket.as_raw_fd());
    loop {
        match UnixStream::connect(&pinned).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
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

/// Takes hold of the server's socket itself. The directory is the container's to write in: whoever
/// gets to run commands there could put a link to another tenant's socket in its place, and this
/// process may open both.
pub(super) fn pin(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let socket = nix::fcntl::open(path, flags, Mode::empty())?;
    let kind = SFlag::from_bits_truncate(fstat(&socket)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFSOCK {
        Ok(socket)
    } else {
        Err(io::Error::other(format!(
            "`{}` is no socket",
            path.display()
        )))
    }
}

/// Connects to the tenant's server and sends it the startup packet.
pub(super) async fn begin(
    route: &Route,
    packet: &[u8],
    within: Duration,
) -> Result<UnixStream, Refusal> {
    let connected = async {
        let mut backend = connect(&route.socket_directory, within).await?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_link_to_another_tenants_socket_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (theirs, ours) = (
            directory.path().join("theirs"),
            directory.path().join("ours"),
        );
        let within = Duration::from_secs(1);
        std::fs::create_dir(&theirs).unwrap();
        std::fs::create_dir(&ours).unwrap();
        let listener = UnixListener::bind(theirs.join(SERVER_SOCKET_NAME)).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(connect(&theirs, within).await.is_ok());
        assert!(listener.accept().is_ok());
        symlink(
            theirs.join(SERVER_SOCKET_NAME),
            ours.join(SERVER_SOCKET_NAME),
        )
        .unwrap();
        let error = connect(&ours, within).await.unwrap_err();
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert!(listener.accept().is_err());
    }
}
