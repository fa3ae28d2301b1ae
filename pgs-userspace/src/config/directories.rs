//! Where things lie on the host. Several sets can live side by side on one machine.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::tenant::id::TenantId;

/// Name of a tenant's server's socket in its directory: `UNIXSOCK_PATH` of PostgreSQL's
/// `src/include/libpq/pqcomm.h`. Inside a container the port in it is always the default one.
pub const SERVER_SOCKET_NAME: &str = ".s.PGSQL.5432";

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

    /// The registry of tenants, an SQLite file. In a directory of its own: a router that runs as
    /// another user makes files beside it, and is to make none beside anything else.
    pub fn registry(&self) -> PathBuf {
        self.registry_directory().join("registry.sqlite")
    }

    /// Where earlier versions had it.
    pub fn former_registry(&self) -> PathBuf {
        self.state.join("registry.sqlite")
    }

    /// Where the registry lies.
    pub fn registry_directory(&self) -> PathBuf {
        self.state.join("registry")
    }

    /// The socket on which `pgs serve` answers the commands.
    pub fn admin_socket(&self) -> PathBuf {
        self.run.join("admin.sock")
    }

    /// Parent of the tenants' socket directories; mode 0710, root's. Under `state` because a
    /// container that Docker restarts at boot must find its directory, and `/run` is empty by then.
    pub fn sockets(&self) -> PathBuf {
        self.state.join("sockets")
    }

    /// A tenant's socket directory, mounted into its container.
    pub fn socket_directory(&self, tenant: &TenantId) -> PathBuf {
        self.sockets().join(tenant.as_str())
    }

    /// Where a tenant's socket directory goes to be removed. No tenant's id begins with a dot.
    pub fn removed_socket_directory(&self, tenant: &TenantId) -> PathBuf {
        self.sockets().join(format!(".{tenant}.removed"))
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

/// Makes a directory, with those above it, or takes the one that is there. It must be root's or the
/// caller's own: a router that runs as another user may write beside it, and what it puts in its
/// place is not to be worked in.
///
/// # Errors
/// It cannot be made, or is somebody else's.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    // Of a link, the link: whoever made it decides where it leads.
    let owner = std::fs::symlink_metadata(path)?.uid();
    if owner == 0 || owner == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("it belongs to user {owner}"),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::lchown;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_another_user_put_there_is_not_taken() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only root can make what is another user's");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (target, link) = (root.path().join("target"), root.path().join("link"));
        make(&target, 0o700).unwrap();
        make(&target, 0o700).unwrap();
        symlink(&target, &link).unwrap();
        make(&link, 0o700).unwrap();
        lchown(&link, Some(4242), None).unwrap();
        let error = make(&link, 0o700).unwrap_err();
        assert!(error.to_string().contains("user 4242"), "{error}");
        lchown(&target, Some(4242), None).unwrap();
        assert!(make(&target, 0o700).is_err());
    }
}
