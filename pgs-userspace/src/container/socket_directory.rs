//! The directory on the host that a tenant's server puts its Unix socket into.

use std::fs::DirBuilder;
use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::config::directories;
use crate::config::directories::Directories;
use crate::config::directories::SERVER_SOCKET_NAME;
use crate::config::limits::SOCKET_PATH_BYTES_MAX;
use crate::container::error::ContainerError;
use crate::container::foreign_tree;
use crate::tenant::id::TenantId;

/// Refuses a path that no Unix socket can have.
///
/// # Errors
/// It is longer than [`SOCKET_PATH_BYTES_MAX`].
pub fn check_length(directories: &Directories, tenant: &TenantId) -> Result<(), ContainerError> {
    let path = directories
        .socket_directory(tenant)
        .join(SERVER_SOCKET_NAME);
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(ContainerError::SocketPathTooLong { path, bytes });
    }
    Ok(())
}

/// Makes a tenant's socket directory, or takes the one that is there.
///
/// Its parent lets in root and the group of a router that runs as its own user, so that nobody else
/// on the host reaches the socket, whatever the container does to the modes of what is mounted into
/// it.
///
/// # Errors
/// The socket's path would be too long, or a directory cannot be made.
pub fn prepare(directories: &Directories, tenant: &TenantId) -> Result<PathBuf, ContainerError> {
    let parent = directories.sockets();
    let directory = directories.socket_directory(tenant);
    check_length(directories, tenant)?;
    directories::make(&parent, 0o710).map_err(ContainerError::directory("make", &parent))?;
    // It may be there already with another mode.
    std::fs::set_permissions(&parent, Permissions::from_mode(0o710))
        .map_err(ContainerError::directory("protect", &parent))?;
    match DirBuilder::new().mode(0o755).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(ContainerError::directory("make", &directory)(error))
        }
        _ => Ok(directory),
    }
}

/// Removes it with all that the container left in it, however much and however deep that is. No
/// link in it is followed.
///
/// # Errors
/// Something in it cannot be removed.
pub async fn remove(directories: &Directories, tenant: &TenantId) -> Result<(), ContainerError> {
    let directory = directories.socket_directory(tenant);
    let (tree, aside) = (
        directory.clone(),
        directories.removed_socket_directory(tenant),
    );
    // As long as it takes: the command can be interrupted meanwhile.
    let removed = tokio::task::spawn_blocking(move || foreign_tree::remove(&tree, &aside)).await;
    removed
        .map_err(io::Error::other)
        .and_then(|removed| removed)
        .map_err(ContainerError::directory("remove", &directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn is_behind_a_directory_of_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path(), "/r");
        let acme = TenantId::parse("acme").unwrap();
        std::fs::create_dir(directories.sockets()).unwrap();
        let made = prepare(&directories, &acme).unwrap();
        assert_eq!(
            std::fs::metadata(directories.sockets()).unwrap().mode() & 0o777,
            0o710
        );
        assert!(made.is_dir());
        assert_eq!(
            prepare(&directories, &acme).unwrap(),
            made,
            "once more is no error"
        );
    }

    #[tokio::test]
    async fn goes_with_all_that_is_in_it_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path(), "/r");
        let acme = TenantId::parse("acme").unwrap();
        let made = prepare(&directories, &acme).unwrap();
        let outside = root.path().join("outside");
        std::fs::write(&outside, "keep").unwrap();
        std::os::unix::fs::symlink(&outside, made.join(SERVER_SOCKET_NAME)).unwrap();
        std::os::unix::fs::symlink(root.path(), made.join("directory")).unwrap();
        remove(&directories, &acme).await.unwrap();
        assert!(outside.exists());
        assert_eq!(
            std::fs::read_dir(directories.sockets()).unwrap().count(),
            0,
            "nothing is left beside it either"
        );
        remove(&directories, &acme).await.unwrap();
    }

    #[tokio::test]
    async fn of_a_tenant_that_never_was_there_is_nothing_to_remove() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), "/r");
        let acme = TenantId::parse("acme").unwrap();
        remove(&directories, &acme).await.unwrap();
        assert!(!directories.state().exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("x".repeat(90)), "/r");
        let error = prepare(&directories, &TenantId::parse("acme").unwrap()).unwrap_err();
        assert!(
            matches!(error, ContainerError::SocketPathTooLong { .. }),
            "{error}"
        );
        assert!(!directories.sockets().exists());
    }
}
