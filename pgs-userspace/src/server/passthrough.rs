//! TLS that a tenant's own server ends: to the server, and on to it what the client has sent.
//!
//! Behind the ClientHello everything is between the client and that server: certificates, channel
//! binding, the login, cancel requests. What is known here is whose it is and how much it is.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::namespace::NamespaceError;
use super::namespace::Namespaces;
use super::negotiation::TlsRequest;
use crate::config::limits::SERVER_TLS_DEADLINE;
use crate::protocol::startup::ssl_request;

/// Why a tenant's own server does not end its clients' TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// It is not to be had by TCP.
    #[error(transparent)]
    Unreachable(#[from] NamespaceError),
    /// It did not answer as a server with TLS does.
    #[error("SSLRequest was answered `{}`: the server has no certificate", .0.escape_ascii())]
    NoTls(u8),
    /// It closed, or did not answer in time.
    #[error("SSLRequest: {0}")]
    Silent(io::Error),
    /// Its handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
}

impl ServerTlsError {
    /// Whether the server runs, and was started before it was to listen for TLS.
    pub(super) fn is_not_listening(&self) -> bool {
        match self {
            Self::Unreachable(NamespaceError::Connect(error)) => {
                error.kind() == io::ErrorKind::ConnectionRefused
            }
            Self::NoTls(answer) => *answer == b'N',
            Self::Unreachable(_) | Self::Silent(_) | Self::Handshake(_) => false,
        }
    }
}

/// Connects to where a tenant's server expects a ClientHello.
pub(super) async fn connect(
    namespaces: &Namespaces,
    directory: &Path,
    request: TlsRequest,
    within: Duration,
) -> Result<TcpStream, ServerTlsError> {
    let mut server = namespaces.connect(directory, within).await?;
    let asked = async {
        server.set_nodelay(true)?;
        // As the client did it: a server asks more of a ClientHello that comes without a request.
        if request == TlsRequest::Direct {
            return Ok(b'S');
        }
        server.write_all(&ssl_request()).await?;
        server.read_u8().await
    };
    match timeout(SERVER_TLS_DEADLINE, asked).await {
        Ok(Ok(b'S')) => Ok(server),
        Ok(Ok(other)) => Err(ServerTlsError::NoTls(other)),
        Ok(Err(error)) => Err(ServerTlsError::Silent(error)),
        Err(_) => Err(ServerTlsError::Silent(io::ErrorKind::TimedOut.into())),
    }
}

/// The certificate that a tenant's server shows its clients now, DER. Whether anybody should trust
/// it is not asked.
///
/// # Errors
/// The server does not listen for TLS, or cannot make a handshake.
pub async fn shown_certificate(directory: &Path) -> Result<Bytes, ServerTlsError> {
    let (namespaces, within) = (Namespaces::default(), SERVER_TLS_DEADLINE);
    let server = connect(&namespaces, directory, TlsRequest::Asked, within).await?;
    let failed = |error: rustls::Error| ServerTlsError::Handshake(io::Error::other(error));
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(LookOnly(provider)))
        .with_no_client_auth();
    config.enable_sni = false;
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, server);
    let mut stream = match timeout(SERVER_TLS_DEADLINE, handshake).await {
        Ok(stream) => stream.map_err(ServerTlsError::Handshake)?,
        Err(_) => return Err(ServerTlsError::Handshake(io::ErrorKind::TimedOut.into())),
    };
    let shown = stream.get_ref().1.peer_certificates();
    let own = shown.and_then(|chain| chain.first());
    let own = own.map(|certificate| Bytes::copy_from_slice(certificate));
    // Without it the server logs that its client went away.
    timeout(SERVER_TLS_DEADLINE, stream.shutdown()).await.ok();
    own.ok_or_else(|| ServerTlsError::Handshake(io::Error::other("no certificate was shown")))
}

/// For looking at a certificate, not for trusting it: nothing is sent over such a connection.
#[derive(Debug)]
struct LookOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for LookOnly {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
