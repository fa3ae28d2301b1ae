//! Whether bytes wait in a socket to be read, wherever in it they are.

use std::io;
use std::os::fd::AsFd;

use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

use super::socket;

/// Bytes in its own queue, or such as a verdict has left there for the router. An end alone does
/// not count.
pub(crate) fn has_unread(socket: impl AsFd) -> io::Result<bool> {
    if socket::unread_bytes(&socket)? > 0 {
        return Ok(true);
    }
    // What passed a verdict is counted by TCP alone. For AF_UNIX it is what takes memory: all else
    // there is charged to its sender. On TCP an end takes some, too.
    Ok(socket_domain(&socket)? == AddressFamily::UNIX && socket::receive_memory(&socket)? > 0)
}
