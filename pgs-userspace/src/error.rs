//! What went wrong, by kind, and the exit code of each kind.

use std::fmt;

use serde_json::json;

use crate::admin::client::AdminError;
use crate::container::error::ContainerError;
use crate::privileges::PrivilegeError;
use crate::tenant::id::InvalidTenantId;
use crate::tenant::lock::LockError;
use crate::tenant::password::PasswordError;
use crate::tenant::registry::RegistryError;

/// What kind of thing went wrong. A script tells them apart by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing the user could have done otherwise, or nothing foreseen.
    Internal,
    /// The command line does not make sense, or a file that it names cannot be used. Also clap's
    /// own code.
    Usage,
    /// No such tenant, or nothing kept of one.
    NotFound,
    /// There is such a tenant, or its data, already.
    Exists,
    /// The text cannot be a tenant id.
    InvalidId,
    /// Another command works on that tenant.
    Busy,
    /// No Docker engine answers.
    DockerUnavailable,
    /// The image is not here and cannot be pulled.
    ImageMissing,
    /// The disk is full.
    NoSpace,
    /// Another program listens on the port.
    PortInUse,
    /// The tenant's server does not run or does not answer.
    Unhealthy,
    /// The command needs `pgs serve`, which does not run.
    ServeNotRunning,
    /// The files or sockets of pgs are root's.
    PermissionDenied,
    /// The registry cannot be read or written.
    Registry,
    /// A question was not answered with yes.
    Declined,
    /// `doctor` found something that keeps pgs from working.
    Diagnosis,
    /// A file of SQL that was to be run failed.
    Sql,
    /// The configuration file is not there or cannot be used, or what it wants is not there.
    Configuration,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

/// Every kind with its exit code and its name in JSON, for the documentation too.
pub const EXIT_CODES: &[(Kind, u8, &str)] = &[
    (Kind::Internal, 1, "internal"),
    (Kind::Usage, 2, "usage"),
    (Kind::NotFound, 3, "not_found"),
    (Kind::Exists, 4, "exists"),
    (Kind::InvalidId, 5, "invalid_id"),
    (Kind::Busy, 6, "busy"),
    (Kind::DockerUnavailable, 7, "docker_unavailable"),
    (Kind::ImageMissing, 8, "image_missing"),
    (Kind::NoSpace, 9, "no_space"),
    (Kind::PortInUse, 10, "port_in_use"),
    (Kind::Unhealthy, 11, "unhealthy"),
    (Kind::ServeNotRunning, 12, "serve_not_running"),
    (Kind::PermissionDenied, 13, "permission_denied"),
    (Kind::Registry, 14, "registry"),
    (Kind::Declined, 15, "declined"),
    (Kind::Diagnosis, 16, "diagnosis"),
    (Kind::Sql, 17, "sql"),
    (Kind::Configuration, 18, "configuration"),
    (Kind::Interrupted, 130, "interrupted"),
];

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        self.row().1
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Self, u8, &'static str) {
        EXIT_CODES
            .iter()
            .find(|row| row.0 == self)
            .unwrap_or(&EXIT_CODES[0])
    }
}

/// An error as a command reports it: what failed on what and why, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with the way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// `{"error": {"kind", "message", "hint", "exit_code"}}`.
    pub fn to_json(&self) -> serde_json::Value {
        json!({ "error": {
            "kind": self.kind.name(),
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.kind.exit_code(),
        }})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<InvalidTenantId> for Error {
    fn from(error: InvalidTenantId) -> Self {
        Self::new(Kind::InvalidId, error.to_string()).with_hint(error.hint())
    }
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        let kind = if error.is_permission_denied() {
            Kind::PermissionDenied
        } else {
            Kind::Registry
        };
        Self {
            kind,
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        let io = match error.source.kind() {
            std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            std::io::ErrorKind::StorageFull => Kind::NoSpace,
            _ => Kind::Internal,
        };
        let failure = Self::new(io, error.to_string());
        match io {
            Kind::PermissionDenied => failure.with_hint(RUN_AS_ROOT),
            _ => failure,
        }
    }
}

/// For everything that fails on root's files.
pub const RUN_AS_ROOT: &str = "run it as root, for example with `sudo`";

impl From<ContainerError> for Error {
    fn from(error: ContainerError) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

impl From<PasswordError> for Error {
    fn from(error: PasswordError) -> Self {
        Self::new(Kind::Usage, error.to_string()).with_hint(error.hint())
    }
}

impl From<PrivilegeError> for Error {
    fn from(error: PrivilegeError) -> Self {
        let made = Self::new(Kind::PermissionDenied, error.to_string());
        match error {
            PrivilegeError::NotRoot { .. } => made.with_hint(RUN_AS_ROOT),
            PrivilegeError::Unreachable { .. } => {
                made.with_hint("every directory above it must let that user through: `chmod o+x`")
            }
            _ => made,
        }
    }
}

impl From<AdminError> for Error {
    fn from(error: AdminError) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_has_an_exit_code_and_a_name_of_its_own() {
        let codes: BTreeSet<u8> = EXIT_CODES.iter().map(|row| row.1).collect();
        let names: BTreeSet<&str> = EXIT_CODES.iter().map(|row| row.2).collect();
        assert_eq!(
            (codes.len(), names.len()),
            (EXIT_CODES.len(), EXIT_CODES.len())
        );
        assert!(!codes.contains(&0));
        assert_eq!(Kind::Usage.exit_code(), 2, "as clap's own");
        assert_eq!(Kind::Interrupted.exit_code(), 130);
    }

    #[test]
    fn json_carries_all_of_it() {
        let error = Error::new(Kind::NotFound, "no tenant `x`").with_hint("`pgs list`");
        let json = error.to_json();
        assert_eq!(json["error"]["kind"], "not_found");
        assert_eq!(json["error"]["exit_code"], 3);
        assert_eq!(json["error"]["hint"], "`pgs list`");
    }
}
