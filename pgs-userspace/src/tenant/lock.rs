//! One command at a time per tenant; a lock that a crashed command cannot keep.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;

use crate::config::directories;
use crate::config::directories::Directories;
use crate::tenant::id::TenantId;

/// The right to change one tenant. The kernel takes it back when the process ends, however it
/// ends: a tenant that is being created and whose lock is free was left behind by a crash.
#[derive(Debug)]
pub struct OperationLock {
    file: Flock<File>,
    path: PathBuf,
}

/// The lock file could not be made or locked.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock `{path}`: {source}")]
pub struct LockError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl OperationLock {
    /// The lock of one tenant, or none where another command holds it.
    ///
    /// # Errors
    /// The lock file cannot be made or locked.
    pub fn try_acquire(
        directories: &Directories,
        tenant: &TenantId,
    ) -> Result<Option<Self>, LockError> {
        let parent = directories.locks();
        let path = parent.join(tenant.as_str());
        let failed = |source| LockError {
            path: path.clone(),
            source,
        };
        directories::make(&parent, 0o700).map_err(failed)?;
        loop {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600);
            let file = options.open(&path).map_err(failed)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Whoever removed the tenant removed the file too: then this lock guards nothing.
                Ok(file) if is_at(&file, &path).map_err(failed)? => {
                    return Ok(Some(Self { file, path }));
                }
                Ok(_) => {}
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
    }

    /// Gives the lock back and takes its file away: the tenant is gone.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn retire(self) -> Result<(), LockError> {
        std::fs::remove_file(&self.path).map_err(|source| LockError {
            path: self.path.clone(),
            source,
        })?;
        drop(self.file);
        Ok(())
    }
}

fn is_at(file: &Flock<File>, path: &Path) -> io::Result<bool> {
    let held = nix::sys::stat::fstat(file.as_fd())?;
    match std::fs::metadata(path) {
        Ok(named) => Ok(named.ino() == held.st_ino && named.dev() == held.st_dev),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Directories, TenantId) {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), root.path().join("run"));
        (root, directories, TenantId::parse("acme").unwrap())
    }

    #[test]
    fn one_holder_at_a_time_and_free_again_after() {
        let (_root, directories, acme) = fixture();
        let held = OperationLock::try_acquire(&directories, &acme).unwrap();
        assert!(held.is_some());
        assert!(
            OperationLock::try_acquire(&directories, &acme)
                .unwrap()
                .is_none()
        );
        let other = TenantId::parse("bob").unwrap();
        assert!(
            OperationLock::try_acquire(&directories, &other)
                .unwrap()
                .is_some()
        );
        drop(held);
        assert!(
            OperationLock::try_acquire(&directories, &acme)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_retired_lock_leaves_no_file_and_can_be_made_anew() {
        let (_root, directories, acme) = fixture();
        let held = OperationLock::try_acquire(&directories, &acme)
            .unwrap()
            .unwrap();
        held.retire().unwrap();
        assert!(!directories.locks().join("acme").exists());
        assert!(
            OperationLock::try_acquire(&directories, &acme)
                .unwrap()
                .is_some()
        );
    }
}
