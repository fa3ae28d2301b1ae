//! What a client's socket takes to be sent: so much at most while the kernel redirects to it, and
//! what TCP sees fit where the router alone writes and the client reads.
//!
//! The verdict reckons with a fixed bound, and one that does not read has no more of the host's
//! memory. But large results are a third slower with it, and take half as much of the processors
//! again (docs/data-path.md).

use std::io;
use std::net::TcpStream;

use super::socket;
use crate::config::limits::CLIENT_SEND_BUFFER_BYTES;
use crate::config::limits::CLIENT_SEND_BUFFER_START_BYTES;
use crate::config::limits::CLIENT_UNSENT_BYTES_MAX;

/// For a session whose backend's bytes pass the verdict.
pub(super) fn bind(client: &TcpStream) -> io::Result<()> {
    socket::set_send_buffer(client, CLIENT_SEND_BUFFER_BYTES).map_err(named("SO_SNDBUF"))?;
    socket::set_unsent_max(client, CLIENT_UNSENT_BYTES_MAX).map_err(named("TCP_NOTSENT_LOWAT"))
}

/// For one to which the router writes, as if it had never been bound.
pub(super) fn free(client: &TcpStream) -> io::Result<()> {
    socket::set_unsent_max(client, u32::MAX).map_err(named("TCP_NOTSENT_LOWAT"))?;
    socket::unset_send_buffer(client, CLIENT_SEND_BUFFER_START_BYTES).map_err(named("SO_SNDBUF"))
}

fn named(option: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("setsockopt {option}: {error}"))
}

#[cfg(test)]
#[path = "client_buffer_tests.rs"]
mod tests;
