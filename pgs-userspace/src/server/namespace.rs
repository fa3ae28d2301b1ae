//! TCP connections to a tenant's server from inside its own network namespace.
//!
//! PostgreSQL does no TLS on a Unix socket (`ProcessStartupPacket` and `ProcessSSLStartup` in
//! `src/backend/tcop/backend_startup.c`), and a tenant's container has no network. What it has is a
//! loopback interface. A socket belongs to the network namespace of the thread that made it: a
//! thread enters the server's, makes one, and ends.
//!
//! Whose namespace it is, the server's Unix socket tells: the kernel names the process that listens
//! on it, and it names it by a descriptor, which never means another process.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sched::setns;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::getsockopt;
use nix::sys::socket::socket;
use nix::sys::socket::sockopt::PeerPidfd;
use nix::sys::stat::fstat;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::directories::SERVER_SOCKET_NAME;
use crate::config::limits::NAMESPACE_ENTRIES_IN_FLIGHT_MAX;
use crate::config::limits::SERVER_PROCESSES_KNOWN_MAX;
use crate::server_socket;

/// Where a tenant's server listens inside its container: PostgreSQL's default port, on loopback.
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 5432);

/// Why there is no TCP connection to a tenant's server.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// Its Unix socket, which tells which process it is, cannot be connected to.
    #[error("connect to its Unix socket: {0}")]
    Socket(io::Error),
    /// The kernel does not say which process listens on it.
    #[error("getsockopt SO_PEERPIDFD (Linux 6.5 and later): {0}")]
    Process(Errno),
    /// That process's network namespace cannot be entered.
    #[error("setns into its network namespace (CAP_SYS_ADMIN and CAP_SYS_PTRACE): {0}")]
    Enter(Errno),
    /// `127.0.0.1` would be this machine's own.
    #[error("its container shares this machine's network: it has no loopback of its own")]
    Shared,
    /// Another system call failed.
    #[error("{call}: {error}")]
    System {
        /// Which.
        call: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The server does not listen there.
    #[error("connect to 127.0.0.1:5432 in its network namespace: {0}")]
    Connect(io::Error),
}

/// The way into tenants' network namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// By socket directory. To ask anew means to connect, for which the server starts a process.
    known: Mutex<HashMap<PathBuf, Known>>,
    entries: Semaphore,
}

/// The process that listens on a Unix socket.
#[derive(Debug, Clone)]
struct Known {
    socket: SocketIdentity,
    process: Arc<OwnedFd>,
}

/// A server that starts makes a new socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketIdentity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Default for Namespaces {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            entries: Semaphore::new(NAMESPACE_ENTRIES_IN_FLIGHT_MAX),
        }
    }
}

impl Namespaces {
    /// Connects to the server whose Unix socket lies in that directory.
    pub(super) async fn connect(
        &self,
        directory: &Path,
        within: Duration,
    ) -> Result<TcpStream, NamespaceError> {
        let socket = match self.make_socket(directory, within).await {
            // It was another server's, which has ended since.
            Err(NamespaceError::Enter(Errno::ESRCH)) => {
                self.forget(directory);
                self.make_socket(directory, within).await?
            }
            made => made?,
        };
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        match timeout(within, socket.connect(SERVER.into())).await {
            Ok(connected) => connected.map_err(NamespaceError::Connect),
            Err(_) => Err(NamespaceError::Connect(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn make_socket(
        &self,
        directory: &Path,
        within: Duration,
    ) -> Result<OwnedFd, NamespaceError> {
        let process = self.process(directory, within).await?;
        // Never closed, so there is always a place in the end.
        let _place = self.entries.acquire().await;
        let (answer, made) = oneshot::channel();
        let entry = move || {
            // Who asked may be gone; then the socket closes here.
            drop(answer.send(make_socket_in(&process)));
        };
        std::thread::Builder::new()
            .name("pgs-netns".to_owned())
            .spawn(entry)
            .map_err(system("clone"))?;
        let lost = |_| io::Error::other("the thread ended without an answer");
        made.await.map_err(lost).map_err(system("clone"))?
    }

    /// Which process listens on the server's Unix socket.
    async fn process(
        &self,
        directory: &Path,
        within: Duration,
    ) -> Result<Arc<OwnedFd>, NamespaceError> {
        let pinned = server_socket::pin(&directory.join(SERVER_SOCKET_NAME));
        let status = pinned.and_then(|pinned| Ok(fstat(&pinned)?));
        let status = status.map_err(NamespaceError::Socket)?;
        let socket = SocketIdentity {
            device: status.st_dev,
            inode: status.st_ino,
            changed: (status.st_ctime, status.st_ctime_nsec),
        };
        if let Some(known) = self.lock().get(directory).cloned()
            && known.socket == socket
        {
            return Ok(known.process);
        }
        let connection = server_socket::connect(directory, within).await;
        let connection = connection.map_err(NamespaceError::Socket)?;
        let process = getsockopt(&connection, PeerPidfd).map_err(NamespaceError::Process)?;
        let process = Arc::new(process);
        let known = Known {
            socket,
            process: Arc::clone(&process),
        };
        self.remember(directory, known);
        Ok(process)
    }

    fn remember(&self, directory: &Path, known: Known) {
        let mut all = self.lock();
        if all.len() >= SERVER_PROCESSES_KNOWN_MAX {
            // Any: to ask again costs a connection.
            let any = all.keys().next().cloned();
            any.and_then(|any| all.remove(&any));
        }
        all.insert(directory.to_owned(), known);
    }

    fn forget(&self, directory: &Path) {
        self.lock().remove(directory);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Known>> {
        // No code that holds it can leave the table half-changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs in a thread of its own, which never leaves the namespace that it has entered.
fn make_socket_in(process: &OwnedFd) -> Result<OwnedFd, NamespaceError> {
    setns(process, CloneFlags::CLONE_NEWNET).map_err(NamespaceError::Enter)?;
    let namespace = |of: &str| {
        let metadata = std::fs::metadata(format!("/proc/{of}/ns/net"))?;
        io::Result::Ok((metadata.dev(), metadata.ino()))
    };
    let (here, home) = (namespace("thread-self"), namespace("self"));
    if here.map_err(system("stat"))? == home.map_err(system("stat"))? {
        return Err(NamespaceError::Shared);
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Inet, SockType::Stream, flags, None)
        .map_err(|error| system("socket")(error.into()))
}

fn system(call: &'static str) -> impl Fn(io::Error) -> NamespaceError {
    move |error| NamespaceError::System { call, error }
}

#[cfg(test)]
#[path = "namespace_tests.rs"]
mod tests;
