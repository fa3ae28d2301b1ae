//! The one type in which the control plane gives a session to the data path.
//!
//! It is made only from an authenticated session over plain sockets: what is encrypted, or not yet
//! authenticated, has no way to become one.

use std::fmt;
use std::net::TcpStream;
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
    /// Counted on.
    pub meter: Arc<Meter>,
    /// Held as long as the session lives; told how it ended.
    pub lease: Box<dyn Lease>,
}

/// What the control plane holds for a session (permits, registration, log context).
pub trait Lease: fmt::Debug + Send {
    /// The session is over and both sockets are closed.
    fn closed(self: Box<Self>, reason: CloseReason);
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
            Self::Deadline(what) => write!(formatter, "deadline: {what}"),
        }
    }
}
