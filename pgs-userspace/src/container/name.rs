//! What belongs to whom in Docker: names and labels of containers and volumes.

use std::collections::HashMap;
use std::fmt;
use std::io;

use sha2::Digest;
use sha2::Sha256;

use crate::config::directories::Directories;
use crate::tenant::id::TenantId;

/// Label with the [`Installation`] that a container or a volume belongs to.
pub const LABEL_INSTALLATION: &str = "dev.pgs.installation";
/// Label with the tenant's id.
pub const LABEL_TENANT: &str = "dev.pgs.tenant";
/// Label with the version of pgs that made it.
pub const LABEL_VERSION: &str = "dev.pgs.version";
/// Label with the state directory, for people: the installation is a digest of it.
pub const LABEL_STATE_DIRECTORY: &str = "dev.pgs.state-dir";

/// Tells one state directory's containers from another's: 8 hexadecimal digits of a digest of its
/// real path, so that it stays the same when the registry is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    id: String,
    state_directory: String,
}

impl Installation {
    /// The installation whose state lies in `directories`.
    ///
    /// # Errors
    /// The state directory cannot be reached.
    pub fn of(directories: &Directories) -> io::Result<Self> {
        let real = match std::fs::canonicalize(directories.state()) {
            // Nothing was ever kept there: then no link leads there either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => directories.state().to_owned(),
            other => other?,
        };
        let digest = Sha256::digest(real.as_os_str().as_encoded_bytes());
        let id = digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            id,
            state_directory: real.to_string_lossy().into_owned(),
        })
    }

    /// Name of a tenant's container, and of its volume.
    pub fn name_of(&self, tenant: &TenantId) -> String {
        format!("pgs-{self}-{tenant}")
    }

    /// The labels of a tenant's container and volume.
    pub(super) fn labels(&self, tenant: &TenantId) -> HashMap<String, String> {
        HashMap::from([
            (LABEL_INSTALLATION.to_owned(), self.id.clone()),
            (LABEL_TENANT.to_owned(), tenant.to_string()),
            (
                LABEL_VERSION.to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
            (
                LABEL_STATE_DIRECTORY.to_owned(),
                self.state_directory.clone(),
            ),
        ])
    }

    /// Whether these labels say that the thing is this installation's and this tenant's.
    pub(super) fn owns(&self, labels: &HashMap<String, String>, tenant: &TenantId) -> bool {
        labels.get(LABEL_INSTALLATION) == Some(&self.id)
            && labels.get(LABEL_TENANT).map(String::as_str) == Some(tenant.as_str())
    }

    /// Docker's filter for everything of this installation.
    pub(super) fn filter(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([(
            "label".to_owned(),
            vec![format!("{LABEL_INSTALLATION}={self}")],
        )])
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// Whose a container or a volume of this installation is.
pub(super) fn tenant_of(labels: &HashMap<String, String>) -> Option<TenantId> {
    labels
        .get(LABEL_TENANT)
        .and_then(|text| TenantId::parse(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_state_directories_are_two_installations_however_they_are_spelt() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let of = |path: &std::path::Path| Installation::of(&Directories::new(path, "/r")).unwrap();
        assert_eq!(of(&one), of(&link));
        assert_ne!(of(&one), of(&two));
        let acme = TenantId::parse("acme").unwrap();
        let name = of(&one).name_of(&acme);
        assert!(
            name.starts_with("pgs-") && name.ends_with("-acme") && name.len() == 17,
            "{name}"
        );
        assert!(of(&one).owns(&of(&one).labels(&acme), &acme));
        assert!(!of(&two).owns(&of(&one).labels(&acme), &acme));
        assert!(!of(&one).owns(&of(&one).labels(&acme), &TenantId::parse("bob").unwrap()));
        assert_eq!(tenant_of(&of(&one).labels(&acme)), Some(acme));
    }
}
