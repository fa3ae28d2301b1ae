//! One certificate with its key: read, and found to fit together.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rustls::InconsistentKeys;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::prelude::X509Certificate;

use super::files::Pair;
use crate::config::limits::CERTIFICATE_FILE_BYTES_MAX;

/// A certificate that can be shown to clients.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// What it says.
    pub description: Description,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The host names that it is for, in lower case.
    pub names: Vec<String>,
    /// The first second at which it is valid.
    pub not_before: SystemTime,
    /// The last second at which it is valid.
    pub not_after: SystemTime,
    /// Whether it vouches for itself.
    pub self_signed: bool,
}

impl Description {
    /// Reads a certificate, DER.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        let at = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        Ok(Self {
            names: names(&parsed)?,
            not_before: at(validity.not_before),
            not_after: at(validity.not_after),
            self_signed: parsed.issuer() == parsed.subject(),
        })
    }

    /// Whether it is for that host name, which may itself have `*.` in front.
    pub fn covers(&self, host: &str) -> bool {
        let wild = host
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        let covered = |name: &String| name == host || Some(name) == wild.as_ref();
        self.names.iter().any(covered)
    }

    /// What its clients may object to at that time.
    pub fn problem(&self, now: SystemTime) -> Option<&'static str> {
        if now > self.not_after {
            Some("expired")
        } else if now < self.not_before {
            Some("not valid yet")
        } else if self.names.is_empty() {
            Some("for no host name")
        } else {
            None
        }
    }
}

/// Why a pair of files is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than any certificate.
    #[error("`{path}` has more than {CERTIFICATE_FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// Others than the owner may read the key.
    #[error("private key `{path}` can be read by others: mode {mode:04o}, user {owner}")]
    KeyExposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's user id.
        owner: u32,
    },
    /// The file holds no certificate in PEM form.
    #[error("`{path}` holds no certificate in PEM form")]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// The file holds no usable private key in PEM form.
    #[error("`{path}` holds no private key in PEM form that could be read without a password")]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// The certificate is damaged.
    #[error("`{path}` holds a certificate that cannot be read: {reason}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key is of a kind that cannot be used.
    #[error("`{path}` holds a private key that cannot be used: {reason}")]
    KeyUnusable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error("the private key `{key}` does not belong to the certificate `{certificate}`")]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

impl CertificateError {
    /// The way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "each certificate needs both files, readable by pgs",
            Self::TooLarge { .. } | Self::NoCertificate { .. } | Self::Damaged { .. } => {
                "the file holds `-----BEGIN CERTIFICATE-----` blocks, the server's own one first"
            }
            Self::KeyExposed { .. } => "`chmod 0600` it, and let root or pgs's own user own it",
            Self::NoKey { .. } => "`openssl pkey -in <file>` writes a key without its password",
            Self::KeyUnusable { .. } => "RSA, ECDSA P-256 or P-384, and Ed25519 keys work",
            Self::Mismatch { .. } => "one of the two was replaced without the other",
        }
    }
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// The first thing found wrong with them. What a certificate's dates say is not an error.
    pub fn load(pair: &Pair) -> Result<Self, CertificateError> {
        let pem = read(&pair.certificate, |_| Ok(()))?;
        let key_pem = read(&pair.key, |file| not_exposed(file, &pair.key))?;
        Self::parse(pair, &pem, &key_pem)
    }

    /// Reads files of the user, whose permissions are theirs to choose; gives their content too.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn import(pair: &Pair) -> Result<(Self, [Vec<u8>; 2]), CertificateError> {
        let content = [
            read(&pair.certificate, |_| Ok(()))?,
            read(&pair.key, |_| Ok(()))?,
        ];
        Ok((Self::parse(pair, &content[0], &content[1])?, content))
    }

    fn parse(pair: &Pair, pem: &[u8], key_pem: &[u8]) -> Result<Self, CertificateError> {
        let path = &pair.certificate;
        let no_certificate = || CertificateError::NoCertificate { path: path.clone() };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| no_certificate())?;
        let own = chain.first().ok_or_else(no_certificate)?.clone();
        // The reason could quote the file, so it is not passed on.
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| CertificateError::NoKey {
            path: pair.key.clone(),
        })?;
        let damaged = |reason: String| CertificateError::Damaged {
            path: path.clone(),
            reason,
        };
        let description = Description::parse(&own).map_err(damaged)?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| unusable(error, pair))?;
        Ok(Self {
            key: Arc::new(key),
            description,
        })
    }

    /// What rustls signs with.
    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The certificate itself, DER, without those that signed it.
    pub fn der(&self) -> &[u8] {
        // There is no `CertifiedKey` made here without one.
        self.key.cert.first().map_or(&[], |own| own.as_ref())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Certificate")
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let alternative = certificate.subject_alternative_name();
    let Some(alternative) = alternative.map_err(|error| error.to_string())? else {
        return Ok(Vec::new());
    };
    let names = alternative.value.general_names.iter();
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

fn unusable(error: rustls::Error, pair: &Pair) -> CertificateError {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            CertificateError::Mismatch {
                certificate: pair.certificate.clone(),
                key: pair.key.clone(),
            }
        }
        rustls::Error::InvalidCertificate(reason) => CertificateError::Damaged {
            path: pair.certificate.clone(),
            reason: reason.to_string(),
        },
        other => CertificateError::KeyUnusable {
            path: pair.key.clone(),
            reason: other.to_string(),
        },
    }
}

pub(super) fn read(
    path: &Path,
    check: impl FnOnce(&File) -> Result<(), CertificateError>,
) -> Result<Vec<u8>, CertificateError> {
    let failed = |source| CertificateError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    check(&file)?;
    let mut content = Vec::new();
    let bound = CERTIFICATE_FILE_BYTES_MAX as u64 + 1;
    file.take(bound).read_to_end(&mut content).map_err(failed)?;
    if content.len() > CERTIFICATE_FILE_BYTES_MAX {
        let path = path.to_owned();
        return Err(CertificateError::TooLarge { path });
    }
    Ok(content)
}

/// The rule of `check_ssl_key_file_permissions` in PostgreSQL's
/// `src/backend/libpq/be-secure-common.c`: the owner alone, or root with a group that may read.
fn not_exposed(file: &File, path: &Path) -> Result<(), CertificateError> {
    let metadata = file.metadata().map_err(|source| CertificateError::Read {
        path: path.to_owned(),
        source,
    })?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    let ours = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    if ours && mode & forbidden == 0 {
        return Ok(());
    }
    Err(CertificateError::KeyExposed {
        path: path.to_owned(),
        mode,
        owner,
    })
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
