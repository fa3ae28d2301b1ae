//! The ClientHello: which host a client asks for, before anybody answers it.
//!
//! No I/O. The bytes stay the caller's: they go on to whoever ends the TLS, pgs or a tenant's own
//! server, exactly as they came.

use rustls::server::Acceptor;

use crate::config::limits::CLIENT_HELLO_BYTES_MAX;

/// Reads a ClientHello as it comes in, in however many records and pieces.
#[derive(Default)]
pub struct ClientHelloReader {
    acceptor: Acceptor,
    fed: usize,
}

/// What is known once some more bytes were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientHelloState {
    /// There is more to come.
    Incomplete,
    /// All of it is there; the host name that it asks for, in lower case.
    Complete(Option<String>),
    /// It is no ClientHello: whoever answers it will say what is wrong.
    Unreadable,
    /// Longer than [`CLIENT_HELLO_BYTES_MAX`].
    TooLong,
}

impl ClientHelloReader {
    /// Takes the next bytes. After anything but [`ClientHelloState::Incomplete`] there are no more
    /// to take.
    pub fn read(&mut self, mut bytes: &[u8]) -> ClientHelloState {
        while !bytes.is_empty() {
            match self.acceptor.read_tls(&mut bytes) {
                // It takes no more: what it has is as much as it would ever look at.
                Ok(0) | Err(_) => return ClientHelloState::Unreadable,
                Ok(taken) => self.fed += taken,
            }
            match self.acceptor.accept() {
                Ok(None) if self.fed > CLIENT_HELLO_BYTES_MAX => return ClientHelloState::TooLong,
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return ClientHelloState::Complete(name);
                }
                Err(_) => return ClientHelloState::Unreadable,
            }
        }
        ClientHelloState::Incomplete
    }
}

#[cfg(test)]
#[path = "client_hello_tests.rs"]
mod tests;
