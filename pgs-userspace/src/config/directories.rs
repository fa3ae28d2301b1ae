//! Where things lie on the host. Several sets can live side by side on one machine.

use std::path::Path;
use std::path::PathBuf;

use crate::tenant::id::TenantId;

/// The two directories that everything of one installation lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    state: PathBuf,
    run: PathBuf,
}

impl Directories {
    /// What survives a reboot in `state`, what does not in `run`.
    pub fn new(state: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Self {
        let (state, run) = (state.into(), run.into());
        Self { state, run }
    }

    /// What survives a reboot.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What does not survive a reboot.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The registry of tenants, an SQLite file.
    pub fn registry(&self) -> PathBuf {
        self.state.join("registry.sqlite")
    }

    /// The socket on which `pgs serve` answers the commands.
    pub fn admin_socket(&self) -> PathBuf {
        self.run.join("admin.sock")
    }

    /// Parent of the tenants' socket directories; mode 0700, root's. Under `state` because a
    /// container that Docker restarts at boot must find its directory, and `/run` is empty by then.
    pub fn sockets(&self) -> PathBuf {
        self.state.join("sockets")
    }

    /// A tenant's socket directory, mounted into its container.
    pub fn socket_directory(&self, tenant: &TenantId) -> PathBuf {
        self.sockets().join(tenant.as_str())
    }

    /// Certificates and their private keys.
    pub fn certificates(&self) -> PathBuf {
        self.state.join("tls")
    }

    /// Parent of the lock files that keep two commands from changing one tenant at once.
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }
}
