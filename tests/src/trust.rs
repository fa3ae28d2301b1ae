//! Certificates for a router and for clients, and clients that trust them or do not care.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedKey;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::SupportedProtocolVersion;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use time::Duration;
use time::OffsetDateTime;

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

/// Who signs clients' certificates.
#[derive(Debug)]
pub struct Authority {
    /// PEM.
    pub certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A client's certificate and its key, in files and in memory.
#[derive(Debug)]
pub struct ClientIdentity {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, for its owner alone.
    pub key: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key_der: PrivateKeyDer<'static>,
}

impl Authority {
    /// Makes one, in a directory.
    pub fn make(directory: &Path) -> anyhow::Result<Self> {
        let mut parameters = CertificateParams::default();
        let name = &mut parameters.distinguished_name;
        name.push(DnType::CommonName, "an authority for clients");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = parameters.self_signed(&key)?.pem();
        let issuer = Issuer::new(parameters, key);
        fs::create_dir_all(directory)?;
        let certificate = directory.join("ca.pem");
        fs::write(&certificate, pem)?;
        Ok(Self {
            certificate,
            issuer,
        })
    }

    /// Signs one for a client of that name, valid until `days` from now, in a directory.
    pub fn sign(&self, directory: &Path, name: &str, days: i64) -> anyhow::Result<ClientIdentity> {
        let mut parameters = CertificateParams::default();
        let common_name = &mut parameters.distinguished_name;
        common_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.not_before = OffsetDateTime::now_utc() - Duration::days(30);
        parameters.not_after = OffsetDateTime::now_utc() + Duration::days(days);
        let key = KeyPair::generate()?;
        let signed = parameters.signed_by(&key, &self.issuer)?;
        fs::create_dir_all(directory)?;
        let (certificate, key_file) = (directory.join("client.pem"), directory.join("client.key"));
        fs::write(&certificate, signed.pem())?;
        fs::write(&key_file, key.serialize_pem())?;
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600))?;
        Ok(ClientIdentity {
            certificate,
            key: key_file,
            chain: vec![signed.der().clone()],
            key_der: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }
}

/// A client that takes any certificate; tests look at it themselves.
pub fn client(name: Option<&str>, alpn: Option<&[u8]>) -> anyhow::Result<ClientConnection> {
    client_that(name, alpn, rustls::DEFAULT_VERSIONS, None)
}

/// The same, with these versions of TLS, and with a certificate of its own.
pub fn client_that(
    name: Option<&str>,
    alpn: Option<&[u8]>,
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<&ClientIdentity>,
) -> anyhow::Result<ClientConnection> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let configuration = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut configuration = match identity {
        Some(ClientIdentity { chain, key_der, .. }) => {
            configuration.with_client_auth_cert(chain.clone(), key_der.clone_key())?
        }
        None => configuration.with_no_client_auth(),
    };
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
