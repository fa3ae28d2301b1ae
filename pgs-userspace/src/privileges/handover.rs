//! Giving a service user what the router works with, and nothing beyond.
//!
//! Commands go on as root. So root keeps every directory that it works in, and the user's group
//! may read the certificates, reach the sockets and use the registry; it can take nothing of
//! root's away and put nothing in its place. `packaging/tmpfiles.d/pgs.conf` says the same.

use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::fchown;

use super::ServiceUser;
use crate::config::directories::Directories;
use crate::config::limits::CERTIFICATES_MAX;
use crate::tenant::registry::Registry;
use crate::tenant::registry::RegistryError;

/// Why something cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// A system call failed on it.
    #[error("cannot hand `{path}` over to the service user: {error}")]
    System {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no registry, and none can be made.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// What a directory or file is to be like.
#[derive(Clone, Copy)]
struct Like {
    owner: Uid,
    group: Gid,
    mode: u32,
}

/// As root, and as often as one likes.
pub(super) fn prepare(directories: &Directories, user: &ServiceUser) -> Result<(), HandoverError> {
    let root = |mode| Like {
        owner: Uid::from_raw(0),
        group: user.gid,
        mode,
    };
    let own = |mode| Like {
        owner: user.uid,
        ..root(mode)
    };
    // Set-group-ID: what commands make in it is the group's too.
    directory(directories.state(), root(0o2750))?;
    // SQLite's files beside the registry may be the user's. Not sticky: with
    // `fs.protected_regular` = 2 (Debian) root could then not open them.
    directory(&directories.registry_directory(), root(0o2770))?;
    directory(&directories.sockets(), root(0o710))?;
    directory(&directories.locks(), root(0o700))?;
    // Made as root: then it stays root's.
    drop(Registry::open(directories)?);
    for suffix in ["", "-wal", "-shm"] {
        let mut path = directories.registry().into_os_string();
        path.push(suffix);
        file_if_any(Path::new(&path), root(0o660))?;
    }
    certificates(&directories.certificates(), user.gid, 0)?;
    directory(directories.run(), own(0o750))?;
    file_if_any(&directories.run().join("serve.lock"), own(0o600))
}

/// Every directory and file below, links not followed.
fn certificates(path: &Path, group: Gid, depth: usize) -> Result<(), HandoverError> {
    let like = |mode| Like {
        owner: Uid::from_raw(0),
        group,
        mode,
    };
    directory(path, like(0o2750))?;
    let failed = |error| HandoverError::System {
        path: path.to_owned(),
        error,
    };
    // Two files for each certificate, and a directory for each name.
    for entry in std::fs::read_dir(path)
        .map_err(failed)?
        .take(2 * CERTIFICATES_MAX)
    {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && depth < CERTIFICATE_DIRECTORY_DEPTH {
            certificates(&entry.path(), group, depth + 1)?;
        } else if kind.is_file() {
            file_if_any(&entry.path(), like(0o640))?;
        }
    }
    Ok(())
}

/// `live/<name>/` is as deep as certificates lie.
const CERTIFICATE_DIRECTORY_DEPTH: usize = 2;

fn directory(path: &Path, like: Like) -> Result<(), HandoverError> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| open(path, OFlag::O_DIRECTORY))
        .and_then(|directory| change(&directory, like));
    made.map_err(|error| HandoverError::System {
        path: path.to_owned(),
        error,
    })
}

fn file_if_any(path: &Path, like: Like) -> Result<(), HandoverError> {
    let changed = match open(path, OFlag::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.and_then(|file| {
            let metadata = file.metadata()?;
            if !metadata.is_file() || metadata.nlink() > 1 {
                return Err(io::Error::other("it is no file, or has another name too"));
            }
            change(&file, like)
        }),
    };
    changed.map_err(|error| HandoverError::System {
        path: path.to_owned(),
        error,
    })
}

/// The thing itself, never what a link leads to: some of these directories were the user's to
/// write in when this is done again.
fn open(path: &Path, extra: OFlag) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | extra;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

fn change(file: &File, like: Like) -> io::Result<()> {
    fchown(file, Some(like.owner), Some(like.group))?;
    file.set_permissions(Permissions::from_mode(like.mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn seen(path: &Path) -> (u32, u32, u32) {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
    }

    fn fixture() -> (tempfile::TempDir, Directories, ServiceUser) {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), root.path().join("run"));
        (root, directories, "4242:4343".parse().unwrap())
    }

    fn is_root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            println!("skipped: only root can hand anything over");
        }
        root
    }

    #[test]
    fn the_group_gets_what_the_router_needs_and_root_keeps_the_rest() {
        if !is_root() {
            return;
        }
        let (_root, directories, user) = fixture();
        let key = directories.certificates().join("live/a/privkey.pem");
        std::fs::create_dir_all(key.parent().unwrap()).unwrap();
        std::fs::write(&key, "key").unwrap();
        // Twice: a restart does it again.
        for _ in 0..2 {
            prepare(&directories, &user).unwrap();
            assert_eq!(seen(directories.state()), (0, 4343, 0o2750));
            assert_eq!(seen(&directories.sockets()), (0, 4343, 0o710));
            assert_eq!(seen(&directories.locks()), (0, 4343, 0o700));
            assert_eq!(seen(&directories.registry()), (0, 4343, 0o660));
            let beside = directories.registry_directory();
            assert_eq!(seen(&beside), (0, 4343, 0o2770));
            assert_eq!(seen(&directories.certificates()), (0, 4343, 0o2750));
            assert_eq!(seen(&key), (0, 4343, 0o640));
            assert_eq!(seen(directories.run()), (4242, 4343, 0o750));
        }
    }

    #[test]
    fn what_a_link_leads_to_stays_as_it_is() {
        if !is_root() {
            return;
        }
        let (root, directories, user) = fixture();
        prepare(&directories, &user).unwrap();
        let outside = root.path().join("outside");
        std::fs::write(&outside, "root's").unwrap();
        let before = seen(&outside);
        symlink(&outside, directories.certificates().join("a.key")).unwrap();
        prepare(&directories, &user).unwrap();
        symlink(&outside, directories.run().join("serve.lock")).unwrap();
        assert!(
            prepare(&directories, &user).is_err(),
            "a link in the place of a file"
        );
        std::fs::remove_file(directories.run().join("serve.lock")).unwrap();
        std::fs::hard_link(&outside, directories.run().join("serve.lock")).unwrap();
        assert!(
            prepare(&directories, &user).is_err(),
            "a second name of a file"
        );
        assert_eq!(seen(&outside), (before.0, before.1, before.2));
    }
}
