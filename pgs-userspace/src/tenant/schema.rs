//! The registry's file: how it is made, opened and kept apart from newer versions of itself.

use std::fs::DirBuilder;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use nix::fcntl::OFlag;
use rusqlite::Connection;
use rusqlite::OpenFlags;

use crate::config::directories::Directories;
use crate::config::limits::REGISTRY_BUSY_DEADLINE;
use crate::tenant::registry::RegistryError;

/// `PRAGMA user_version` of the schema below.
pub(super) const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE tenant (
        id           TEXT PRIMARY KEY NOT NULL,
        lifecycle    TEXT NOT NULL CHECK (lifecycle IN ('creating', 'ready', 'removing')),
        access       TEXT NOT NULL CHECK (access IN ('enabled', 'disabled')),
        image        TEXT NOT NULL,
        memory_bytes INTEGER NOT NULL CHECK (memory_bytes > 0),
        cpu_millis   INTEGER NOT NULL CHECK (cpu_millis > 0),
        network      TEXT,
        volume_fate  TEXT NOT NULL CHECK (volume_fate IN ('delete', 'keep')),
        created_at   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// A connection that may write; makes directory, file and schema where they are missing.
pub(super) fn open_writable(directories: &Directories) -> Result<Connection, RegistryError> {
    let path = directories.registry();
    make_directory(directories.state())?;
    let connection = open(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
    if version(&connection, &path)? == 0 {
        create_schema(&connection, &path)?;
    }
    check_version(&connection, &path)?;
    Ok(connection)
}

/// A connection that never writes to an existing, current registry.
///
/// It is opened for writing all the same: the readers of a write-ahead log keep their marks in
/// its shared-memory file.
pub(super) fn open_reader(path: &Path) -> Result<Connection, RegistryError> {
    let connection = open(path, OpenFlags::empty())?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(RegistryError::query(path, "PRAGMA query_only"))?;
    check_version(&connection, path)?;
    Ok(connection)
}

fn make_directory(path: &Path) -> Result<(), RegistryError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| RegistryError::Directory {
            path: path.to_owned(),
            source,
        })
}

fn open(path: &Path, extra: OpenFlags) -> Result<Connection, RegistryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    let failed = |source| RegistryError::Open {
        path: path.to_owned(),
        source,
    };
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection
        .busy_timeout(REGISTRY_BUSY_DEADLINE)
        .map_err(failed)?;
    // FULL: what a command reported as done is still done after a power cut.
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    Ok(connection)
}

/// Under a file lock: switching to write-ahead logging fails at once, whatever the busy timeout,
/// where another process does the same.
fn create_schema(connection: &Connection, path: &Path) -> Result<(), RegistryError> {
    let lock_path = path.with_extension("lock");
    let lock_failed = |source| RegistryError::Directory {
        path: lock_path.clone(),
        source,
    };
    // A router that runs as its own user may write beside the registry: no link is followed.
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&lock_path)
        .map_err(lock_failed)?;
    let _guard = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| lock_failed(io::Error::from(errno)))?;
    if version(connection, path)? != 0 {
        return Ok(());
    }
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(RegistryError::query(path, "PRAGMA journal_mode"))?;
    // The group of the directory is that of a router which runs as its own user; SQLite gives the
    // files beside the registry the same mode.
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(|source| {
        RegistryError::Directory {
            path: path.to_owned(),
            source,
        }
    })?;
    connection
        .execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))
        .map_err(RegistryError::query(path, "CREATE TABLE"))
}

fn version(connection: &Connection, path: &Path) -> Result<i64, RegistryError> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(RegistryError::query(path, "PRAGMA user_version"))
}

fn check_version(connection: &Connection, path: &Path) -> Result<(), RegistryError> {
    let found = version(connection, path)?;
    if found == VERSION {
        return Ok(());
    }
    Err(RegistryError::Version {
        path: path.to_owned(),
        found,
        known: VERSION,
    })
}
