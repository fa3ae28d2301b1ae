//! The one type in which the control plane gives a session to the data path.
//!
//! It is made only from an authenticated session over plain sockets: what is encrypted, or not yet
//! authenticated, has no way to become one.

use std::fmt;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;

use super::meter::Meter;

/// An authenticated session, both ends plain sockets, between two messages of the protocol.
#[derive(Debug)]
pub struct Handover {
    /// The client's connection, non-blocking.
    pub client: TcpStream,
    /// The router's end of the connection to the tenant's server, non-blocking.
    pub backend: UnixStream,
    /// Read from the client, not yet written to the backend.
    pub pending_to_backend: Bytes,
    /// Read from the backend, not yet written to the client.
    pub pending_to_client: Bytes,
    /// What its bytes in the kernel are counted on, beside the meter: see
    /// [`DataPath::account`](super::DataPath::account).
    pub account: u32,
    /// Why it is to be relayed; `None` where it may go through the kernel.
    pub relayed: Option<&'static str>,
    /// Counted on.
    pub meter: Arc<Meter>,
    /// Held as long as the session lives; told how it ended.
    pub lease: Box<dyn Lease>,
}

/// A session that another process has left to the kernel.
#[derive(Debug)]
pub struct Orphan {
    /// Where it is in the kernel's tables.
    pub place: u32,
    /// The client's connection.
    pub client: TcpStream,
    /// The router's end of the connection to the tenant's server.
    pub backend: UnixStream,
    /// Its private socket.
    pub aside: UnixDatagram,
    /// Counted on.
    pub meter: Arc<Meter>,
    /// Held as long as the session lives.
    pub lease: Box<dyn Lease>,
}

/// The sockets of a session whose bytes the kernel moves.
#[derive(Debug, Clone, Copy)]
pub struct SessionSockets<'a> {
    /// The client's connection.
    pub client: BorrowedFd<'a>,
    /// The router's end of the connection to the tenant's server.
    pub backend: BorrowedFd<'a>,
    /// Its private socket.
    pub aside: BorrowedFd<'a>,
}

/// What the control plane holds for a session (permits, registration, log context).
pub trait Lease: fmt::Debug + Send {
    /// On whose account the session's bytes are.
    fn owner(&self) -> &str;

    /// From here on the kernel can move the session's bytes without this process. Says whether it
    /// is kept, so that another process can go on with it.
    #[must_use]
    fn goes_on_alone(&self, place: u32, sockets: SessionSockets<'_>) -> bool;

    /// Whether what was kept still is, as far as is known.
    #[must_use]
    fn is_held(&self, place: u32) -> bool;

    /// Another process takes the others over; this session's bytes are only here, so it stays.
    fn stays(&self, place: u32);

    /// Not any more: the session is about to end.
    fn needs_this_process(&self, place: u32);

    /// The session is over and both sockets are closed.
    fn closed(self: Box<Self>, reason: CloseReason);

    /// The session goes on, and is another process's from here on.
    fn released(self: Box<Self>);
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed, in order.
    Client,
    /// The backend closed, in order.
    Backend,
    /// The client's connection broke.
    ClientFailed(String),
    /// The backend's connection broke.
    BackendFailed(String),
    /// Access was disabled, or an administrator ended the session.
    Terminated,
    /// Nothing moved for as long as may be.
    Idle,
    /// The router stops.
    Shutdown,
    /// Another router left it in a state from which it cannot go on.
    Orphaned(String),
    /// A wait of the closing handshake ran out.
    Deadline(&'static str),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => formatter.write_str("client closed"),
            Self::Backend => formatter.write_str("backend closed"),
            Self::ClientFailed(why) => write!(formatter, "client connection failed: {why}"),
            Self::BackendFailed(why) => write!(formatter, "backend connection failed: {why}"),
            Self::Terminated => formatter.write_str("terminated by administrator"),
            Self::Idle => formatter.write_str("idle for too long"),
            Self::Shutdown => formatter.write_str("router shut down"),
            Self::Orphaned(why) => write!(formatter, "not taken over: {why}"),
            Self::Deadline(what) => write!(formatter, "deadline: {what}"),
        }
    }
}
