//! Connecting to a tenant's server over its Unix socket, and to nothing else.
//!
//! The socket's directory is the container's to write in. Whoever gets to run commands there could
//! put a link to another tenant's socket in its place, or to one of the host's that only root may
//! open: it is never followed. Or they listen and never accept: that is waited for as long as was
//! asked for.

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
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::config::directories::SERVER_SOCKET_NAME;
use crate::config::limits::BACKEND_CONNECT_RETRY_INTERVAL_MAX;
use crate::config::limits::BACKEND_CONNECT_RETRY_INTERVAL_MIN;

/// Connects. A server whose queue of new connections is full is asked again until the deadline.
///
/// # Errors
/// There is no socket, nobody listens on it, or the queue stayed full: `WouldBlock`.
pub async fn connect(directory: &Path, within: Duration) -> io::Result<UnixStream> {
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

/// Takes hold of the server's socket itself, whatever its name leads to later.
///
/// # Errors
/// There is nothing of that name, or it is no socket.
pub fn pin(path: &Path) -> io::Result<OwnedFd> {
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
