//! A certificate for development, which vouches for itself.

use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::KeyPair;
use time::OffsetDateTime;

use crate::config::limits::SELF_SIGNED_VALIDITY;

/// A certificate and its key, both PEM.
pub struct SelfSigned {
    /// Clients can trust it as `sslrootcert`.
    pub certificate_pem: String,
    /// ECDSA P-256.
    pub key_pem: String,
}

/// Makes one for these host names and addresses.
///
/// # Errors
/// A name is none, or there is no randomness.
pub fn generate(names: &[String]) -> Result<SelfSigned, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.not_before = OffsetDateTime::now_utc() - time::Duration::HOUR;
    parameters.not_after = OffsetDateTime::now_utc() + SELF_SIGNED_VALIDITY;
    parameters
        .distinguished_name
        .push(DnType::CommonName, "pgs self-signed");
    // Not an authority: some clients refuse a server that shows an authority's certificate.
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok(SelfSigned {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}
