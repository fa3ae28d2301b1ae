//! TLS towards clients: what is on offer, the handshake, and what a server name says.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::server::ResolvesServerCert;
use rustls::version::TLS12;
use rustls::version::TLS13;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::finish;
use super::negotiation::TlsRequest;
use super::rewound::Rewound;
use crate::config::limits::CLOSE_LINGER;
use crate::config::limits::TLS_RECORD_BYTES_MAX;
use crate::tls::store::CertificateStore;

/// `PG_ALPN_PROTOCOL` of PostgreSQL's `src/include/libpq/pqcomm.h`.
const ALPN: &[u8] = b"postgresql";

/// A client connected over TLS.
pub(super) type SecureStream = TlsStream<Rewound<TcpStream>>;

/// What pgs does about TLS.
#[derive(Debug)]
pub(super) struct Encryption {
    certificates: Arc<CertificateStore>,
    configuration: Arc<ServerConfig>,
    /// Whether a session in the clear is refused.
    pub(super) required: bool,
    domains: Vec<String>,
}

/// Why a client is not connected over TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("TLS handshake: {0}")]
    Failed(#[from] io::Error),
    /// PostgreSQL's `ProcessSSLStartup` closes without a word too.
    #[error("direct TLS without ALPN: the client did not ask for protocol `postgresql`")]
    NoAlpn,
}

impl Encryption {
    /// Resumption and tickets are off, as in PostgreSQL: every session proves itself.
    pub(super) fn new(
        certificates: CertificateStore,
        required: bool,
        domains: Vec<String>,
    ) -> Result<Self, rustls::Error> {
        let certificates = Arc::new(certificates);
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<CertificateStore>::clone(&certificates);
        let mut configuration =
            ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&TLS13, &TLS12])?
                .with_no_client_auth()
                .with_cert_resolver(resolver);
        configuration.alpn_protocols = vec![ALPN.to_vec()];
        configuration.max_fragment_size = Some(TLS_RECORD_BYTES_MAX);
        configuration.session_storage = Arc::new(NoServerSessionStorage {});
        configuration.send_tls13_tickets = 0;
        Ok(Self {
            certificates,
            configuration: Arc::new(configuration),
            required,
            domains,
        })
    }

    /// Whether a client that asks for TLS gets it.
    pub(super) async fn is_offered(&self) -> bool {
        self.certificates.refresh().await;
        !self.certificates.is_empty()
    }

    /// The handshake. `front` was read from the client already.
    pub(super) async fn accept(
        &self,
        client: TcpStream,
        request: TlsRequest,
        front: BytesMut,
    ) -> Result<SecureStream, HandshakeError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.configuration));
        let handshake = acceptor.accept(Rewound::new(front, client));
        let mut stream = match handshake.into_fallible().await {
            Ok(stream) => stream,
            Err((error, mut stream)) => {
                // The client is to get the alert that tells it why.
                timeout(CLOSE_LINGER, finish(&mut stream)).await.ok();
                return Err(error.into());
            }
        };
        let agreed = stream.get_ref().1.alpn_protocol();
        // A client that offers ALPN, but not this protocol, is told so in the handshake.
        if request == TlsRequest::Direct && agreed != Some(ALPN) {
            stream.shutdown().await?;
            return Err(HandshakeError::NoAlpn);
        }
        Ok(stream)
    }

    /// The tenant that a server name is for: `<tenant>.<domain>`. A name like that says it alone,
    /// or the answer to a guessed one would tell whether there is such a tenant.
    pub(super) fn tenant_label<'name>(&self, server_name: &'name str) -> Option<&'name str> {
        let (label, domain) = server_name.split_once('.')?;
        let known = |known: &String| domain.eq_ignore_ascii_case(known);
        self.domains.iter().any(known).then_some(label)
    }
}

#[cfg(test)]
#[path = "encryption_tests.rs"]
mod tests;
