//! Certificates for a router, and clients that trust them or do not care.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::CertifiedKey;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;

/// What PostgreSQL's clients ask for.
pub const ALPN: &[u8] = b"postgresql";

/// A self-signed certificate and its key, in files.
#[derive(Debug)]
pub struct Issued {
    /// PEM; also what a client can trust.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// What a client is shown.
    pub der: CertificateDer<'static>,
}

/// Makes a certificate for these names, in a directory.
pub fn issue(directory: &Path, names: &[&str]) -> anyhow::Result<Issued> {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    fs::create_dir_all(directory)?;
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    fs::write(&certificate, cert.pem())?;
    fs::write(&key, signing_key.serialize_pem())?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    Ok(Issued {
        certificate,
        key,
        der: cert.der().clone(),
    })
}

/// A client that takes any certificate; tests look at it themselves.
pub fn client(name: Option<&str>, alpn: Option<&[u8]>) -> anyhow::Result<ClientConnection> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let mut configuration = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    configuration.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    configuration.enable_sni = name.is_some();
    let name = ServerName::try_from(name.unwrap_or("localhost").to_owned())?;
    ClientConnection::new(Arc::new(configuration), name).context("a TLS client")
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
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
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
