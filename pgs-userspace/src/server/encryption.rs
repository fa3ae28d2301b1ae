//! TLS towards clients: what is on offer, the handshake, and what a server name says.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::server::ResolvesServerCert;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
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
use crate::config::sections::Tls;
use crate::config::sections::TlsVersion;
use crate::tls::client_certificate::PossessionVerifier;
use crate::tls::name::without_root;
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
    /// The same, but clients are asked for a certificate.
    asking: Arc<ServerConfig>,
    /// Whether a session in the clear is refused.
    pub(super) required: bool,
    domains: Vec<String>,
}

/// Whether a client is asked for a certificate in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientCertificateRequest {
    /// No.
    None,
    /// Yes, but it need not have one.
    Optional,
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
    pub(super) fn new(certificates: CertificateStore, tls: &Tls) -> Result<Self, rustls::Error> {
        Self::of(Arc::new(certificates), tls)
    }

    /// The same certificates, but as `tls` says from now on.
    pub(super) fn with(&self, tls: &Tls) -> Result<Self, rustls::Error> {
        Self::of(Arc::clone(&self.certificates), tls)
    }

    fn of(certificates: Arc<CertificateStore>, tls: &Tls) -> Result<Self, rustls::Error> {
        let (version_min, verifier) = (tls.version_min, PossessionVerifier::default());
        let configuration = configuration_of(
            &certificates,
            version_min,
            WebPkiClientVerifier::no_client_auth(),
        )?;
        let asking = configuration_of(&certificates, version_min, Arc::new(verifier))?;
        Ok(Self {
            certificates,
            configuration: Arc::new(configuration),
            asking: Arc::new(asking),
            required: tls.required,
            domains: tls.domains.0.clone(),
        })
    }

    /// Whether there is a certificate to show to a client that asks for TLS.
    pub(super) async fn has_certificate(&self) -> bool {
        self.certificates.refresh().await;
        !self.certificates.is_empty()
    }

    /// Whether anybody can encrypt: by a certificate of ours, or as `passthrough` says by a
    /// tenant's own server, to which a server name leads.
    pub(super) fn offers_anything(&self, passthrough: bool) -> bool {
        !self.certificates.is_empty() || self.has_domains() && passthrough
    }

    /// Whether server names can name tenants.
    pub(super) fn has_domains(&self) -> bool {
        !self.domains.is_empty()
    }

    /// The handshake. `front` was read from the client already.
    pub(super) async fn accept(
        &self,
        client: TcpStream,
        request: TlsRequest,
        front: BytesMut,
        certificates: ClientCertificateRequest,
    ) -> Result<SecureStream, HandshakeError> {
        let configuration = match certificates {
            ClientCertificateRequest::None => &self.configuration,
            ClientCertificateRequest::Optional => &self.asking,
        };
        let acceptor = TlsAcceptor::from(Arc::clone(configuration));
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
        let (label, domain) = without_root(server_name).split_once('.')?;
        let known = |known: &String| domain.eq_ignore_ascii_case(known);
        self.domains.iter().any(known).then_some(label)
    }
}

/// Resumption and tickets are off, as in PostgreSQL: every session proves itself.
fn configuration_of(
    certificates: &Arc<CertificateStore>,
    version_min: TlsVersion,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match version_min {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<CertificateStore>::clone(certificates);
    let mut configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    configuration.alpn_protocols = vec![ALPN.to_vec()];
    configuration.max_fragment_size = Some(TLS_RECORD_BYTES_MAX);
    configuration.session_storage = Arc::new(NoServerSessionStorage {});
    configuration.send_tls13_tickets = 0;
    Ok(configuration)
}

#[cfg(test)]
#[path = "encryption_tests.rs"]
mod tests;
