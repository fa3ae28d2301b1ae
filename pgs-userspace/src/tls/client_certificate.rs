//! Certificates of clients: asked for in the handshake, judged once the tenant is known.
//!
//! Which authority a client's certificate has to come from is its tenant's to say, and the tenant
//! may be known only from the startup packet. So the handshake proves that the client holds the key
//! of the certificate that it shows, and no more.

use std::fmt;
use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::ring;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::VerifierBuilderError;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::FromDer as _;
use x509_parser::prelude::X509Certificate;

/// Asks for a certificate, takes any or none, and makes sure that its key is the client's.
#[derive(Debug)]
pub struct PossessionVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Default for PossessionVerifier {
    fn default() -> Self {
        Self {
            algorithms: ring::default_provider().signature_verification_algorithms,
        }
    }
}

impl ClientCertVerifier for PossessionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: the authorities that would be named are the tenants', and anybody could read them.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Not before it is known whose client it is: `ClientAuthority::verify`.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Who vouches for a tenant's clients.
#[derive(Clone)]
pub struct ClientAuthority {
    verifier: Arc<dyn ClientCertVerifier>,
    /// How many certificates of authorities there are.
    pub authorities: usize,
    /// How many lists of revoked certificates.
    pub revocation_lists: usize,
}

/// Why a file names no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientAuthorityError {
    /// It is not PEM.
    #[error("not in PEM form")]
    NotPem,
    /// There is no certificate in it.
    #[error("no certificate of an authority in it")]
    Empty,
    /// One of its certificates is no authority's.
    #[error("certificate {index} cannot be an authority's: {reason}")]
    Unusable {
        /// Which, counted from 1.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A list of revoked certificates is damaged.
    #[error("a list of revoked certificates cannot be used: {0}")]
    RevocationList(String),
}

/// Why a client's certificate is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientCertificateError {
    /// It was not shown at all.
    #[error("the client showed no certificate")]
    Absent,
    /// No authority of the tenant vouches for it, or not now, or not any more.
    #[error("{0}")]
    Invalid(rustls::Error),
    /// It is somebody else's than the user's who logs in.
    #[error("the certificate's common name is {}", shown(.0.as_deref()))]
    OtherName(Option<String>),
}

fn shown(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("`{}`", name.escape_debug()),
        None => "not there".to_owned(),
    }
}

impl ClientAuthority {
    /// Reads `CERTIFICATE` and `X509 CRL` blocks; others are passed over.
    ///
    /// # Errors
    /// There is no certificate, or one that cannot be used.
    pub fn parse(pem: &[u8]) -> Result<Self, ClientAuthorityError> {
        let mut roots = RootCertStore::empty();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let certificate = certificate.map_err(|_| ClientAuthorityError::NotPem)?;
            roots
                .add(certificate)
                .map_err(|error| ClientAuthorityError::Unusable {
                    index: index + 1,
                    reason: error.to_string(),
                })?;
        }
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| ClientAuthorityError::NotPem)?;
        let (authorities, revocation_lists) = (roots.len(), lists.len());
        let provider = Arc::new(ring::default_provider());
        // Without a list of an issuer's nothing is revoked, as in PostgreSQL without
        // `ssl_crl_file`.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(lists)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| match error {
                VerifierBuilderError::NoRootAnchors => ClientAuthorityError::Empty,
                other => ClientAuthorityError::RevocationList(other.to_string()),
            })?;
        Ok(Self {
            verifier,
            authorities,
            revocation_lists,
        })
    }

    /// Whether an authority vouches for what a client has shown; gives the certificate's common
    /// name. That the client holds its key was proved in the handshake.
    ///
    /// # Errors
    /// It showed nothing, or nobody vouches for it.
    pub fn verify(
        &self,
        shown: Option<&[CertificateDer<'_>]>,
    ) -> Result<Option<String>, ClientCertificateError> {
        let Some((own, between)) = shown.and_then(<[_]>::split_first) else {
            return Err(ClientCertificateError::Absent);
        };
        self.verifier
            .verify_client_cert(own, between, UnixTime::now())
            .map_err(ClientCertificateError::Invalid)?;
        Ok(common_name(own))
    }

    /// The same, for one user alone: the certificate's common name must be the user's.
    ///
    /// # Errors
    /// As [`Self::verify`], or it is another's.
    pub fn verify_user(
        &self,
        shown: Option<&[CertificateDer<'_>]>,
        user: &[u8],
    ) -> Result<(), ClientCertificateError> {
        let name = self.verify(shown)?;
        match &name {
            Some(name) if name.as_bytes() == user => Ok(()),
            _ => Err(ClientCertificateError::OtherName(name)),
        }
    }
}

impl fmt::Debug for ClientAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientAuthority")
            .field("authorities", &self.authorities)
            .field("revocation_lists", &self.revocation_lists)
            .finish_non_exhaustive()
    }
}

/// The only common name of a certificate. PostgreSQL takes the first of several; with one name
/// alone nobody can be mistaken about which counts.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return None;
    };
    Some(name.as_str().ok()?.to_owned())
}

#[cfg(test)]
#[path = "client_certificate_tests.rs"]
mod tests;
