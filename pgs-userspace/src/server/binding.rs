//! Where the router listens: with sockets that were kept, and with new ones. Of these, what can
//! fail is tried before another router lets go for this one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::Socket;
use tokio::net::TcpListener;

use super::listener;
use super::run::ServeError;
use super::run::Settings;
use super::survival::KeptListeners;
use crate::admin::client;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::config::listen::ListenOn;

/// Sockets that are bound, and do not listen yet.
#[derive(Debug, Default)]
pub(super) struct Bound(Vec<(SocketAddr, Socket)>);

impl Bound {
    /// Where a router is to be taken over: every address that it does not listen on. Fails where
    /// one cannot be had, as long as the other router goes on.
    pub(super) async fn beforehand(settings: &Settings) -> Result<Self, ServeError> {
        let mut bound = Self::default();
        if !settings.take_over {
            return Ok(bound);
        }
        let addresses = settings.configuration.serve.listen.iter();
        let mut in_use = Vec::new();
        for address in addresses.map(|on| on.address).filter(|one| one.port() != 0) {
            match listener::bind(address) {
                Ok(socket) => bound.0.push((address, socket)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => in_use.push(address),
                Err(error) => return Err(failed(address, error)),
            }
        }
        if in_use.is_empty() {
            return Ok(bound);
        }
        // Not known where nobody answers: then it is found out when all that is kept has come.
        let Some(others) = addresses_of_running(settings).await else {
            return Ok(bound);
        };
        match in_use.into_iter().find(|one| !others.contains(one)) {
            Some(address) => Err(ServeError::AddressInUse { address }),
            None => Ok(bound),
        }
    }

    /// Listens on every address, with the socket that was kept for it where there is one.
    pub(super) fn listen(
        mut self,
        addresses: &[ListenOn],
        kept: &mut KeptListeners,
    ) -> Result<Vec<Arc<TcpListener>>, ServeError> {
        let addresses = addresses.iter().map(|on| on.address);
        let listeners = addresses.map(|address| {
            let listener = match kept.take(address) {
                Some(kept) => kept,
                None => self.take(address).and_then(listener::listen),
            };
            listener
                .map(Arc::new)
                .map_err(|error| failed(address, error))
        });
        listeners.collect()
    }

    fn take(&mut self, address: SocketAddr) -> io::Result<Socket> {
        match self.0.iter().position(|(bound, _)| *bound == address) {
            Some(index) => Ok(self.0.swap_remove(index).1),
            None => listener::bind(address),
        }
    }
}

/// What the router that is running listens on; none where that is not known.
async fn addresses_of_running(settings: &Settings) -> Option<Vec<SocketAddr>> {
    let socket = settings.directories.admin_socket();
    match client::ask(&socket, &Request::Status).await {
        Ok(Response::Status(status)) => {
            let listen = status.listen.iter();
            Some(
                listen
                    .filter_map(|on| Some(on.parse::<ListenOn>().ok()?.address))
                    .collect(),
            )
        }
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "it is not known where the other router listens");
            None
        }
    }
}

fn failed(address: SocketAddr, error: io::Error) -> ServeError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ServeError::AddressInUse { address },
        _ => ServeError::Listen { address, error },
    }
}
