//! What can go wrong with the registry.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::tenant::settings::InvalidSetting;

/// What can go wrong with the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A directory or lock file beside the registry could not be made.
    #[error("cannot make `{path}`: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is gone, or may not be looked at.
    #[error("cannot read the registry `{path}`: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be opened.
    #[error("cannot open the registry `{path}`: {source}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A statement failed.
    #[error("registry `{path}`: {statement} failed: {source}")]
    Query {
        /// The file.
        path: PathBuf,
        /// Which statement.
        statement: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A tenant's setting is none that this version knows.
    #[error("registry `{path}`, tenant `{tenant}`: {source}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// Whose.
        tenant: String,
        /// Which, and why not.
        source: InvalidSetting,
    },
    /// Written by another version of pgs, or not a registry at all.
    #[error("registry `{path}` has schema version {found}, this pgs knows version {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
}

impl RegistryError {
    /// Whether the files are someone else's.
    pub fn is_permission_denied(&self) -> bool {
        match self {
            Self::Directory { source, .. } | Self::Unreadable { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Open { source, .. } | Self::Query { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)
            ),
            Self::Setting { .. } | Self::Version { .. } => false,
        }
    }

    /// The way out.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            _ if self.is_permission_denied() => {
                Some("run it as root, or name a directory of your own with `--state-dir`")
            }
            Self::Setting { .. } => {
                Some("`pgs show <tenant>` shows them; `pgs set <tenant> --unset <name>` undoes one")
            }
            Self::Version { .. } => Some("use the version of pgs that wrote it, or a newer one"),
            _ => None,
        }
    }

    pub(super) fn query(
        path: &Path,
        statement: &'static str,
    ) -> impl FnOnce(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Query {
            path,
            statement,
            source,
        }
    }
}
