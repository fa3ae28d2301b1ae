//! The files of those who sign clients' certificates. A changed one counts from the next login on.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::certificate;
use super::certificate::CertificateError;
use super::client_certificate::ClientAuthority;
use super::client_certificate::ClientAuthorityError;
use super::stamp::Stamp;
use crate::config::limits::CLIENT_AUTHORITIES_KNOWN_MAX;

/// Why nobody can be vouched for.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthorityFileError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] CertificateError),
    /// What is in it is of no use.
    #[error("`{path}`: {source}")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ClientAuthorityError,
    },
}

/// Reads a file of certificates, and of lists of revoked ones.
///
/// # Errors
/// It cannot be read, or is of no use.
pub fn load(path: &Path) -> Result<ClientAuthority, ClientAuthorityFileError> {
    let pem = certificate::read(path, |_| Ok(()))?;
    ClientAuthority::parse(&pem).map_err(|source| ClientAuthorityFileError::Content {
        path: path.to_owned(),
        source,
    })
}

/// What was read, by path.
#[derive(Debug, Default)]
pub struct ClientAuthorities(Mutex<HashMap<PathBuf, Known>>);

#[derive(Debug, Clone)]
struct Known {
    stamp: Option<Stamp>,
    authority: Arc<ClientAuthority>,
}

impl ClientAuthorities {
    /// What the file says now. A file that has become useless lets nobody in: it may have been
    /// changed because of one who must not come in any more.
    ///
    /// # Errors
    /// As [`load`].
    pub fn get(&self, path: &Path) -> Result<Arc<ClientAuthority>, ClientAuthorityFileError> {
        // Before reading: what changes meanwhile is seen at the next look.
        let stamp = Stamp::of(path);
        let known = self.lock().get(path).cloned();
        if let Some(known) = known.filter(|known| stamp.is_some() && known.stamp == stamp) {
            return Ok(known.authority);
        }
        let authority = Arc::new(load(path)?);
        let known = Known {
            stamp,
            authority: Arc::clone(&authority),
        };
        let mut all = self.lock();
        if all.len() >= CLIENT_AUTHORITIES_KNOWN_MAX {
            // Any: it is read again when it is needed.
            let any = all.keys().next().cloned();
            any.and_then(|any| all.remove(&any));
        }
        all.insert(path.to_owned(), known);
        Ok(authority)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Known>> {
        // No code that holds it can leave the table half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::self_signed;

    #[test]
    fn a_file_is_read_again_when_it_changes_and_never_trusted_when_it_is_damaged() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ca.pem");
        let all = ClientAuthorities::default();
        assert!(all.get(&path).is_err());
        let one = self_signed::generate(&["a.test".to_owned()]).unwrap();
        std::fs::write(&path, &one.certificate_pem).unwrap();
        let first = all.get(&path).unwrap();
        assert!(Arc::ptr_eq(&first, &all.get(&path).unwrap()), "read again");
        let two = format!("{}{}", one.certificate_pem, one.certificate_pem);
        std::fs::write(&path, two).unwrap();
        assert_eq!(all.get(&path).unwrap().authorities, 2);
        std::fs::write(&path, "nonsense").unwrap();
        let error = all.get(&path).unwrap_err();
        assert!(
            matches!(error, ClientAuthorityFileError::Content { .. }),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(all.get(&path).is_err());
    }
}
