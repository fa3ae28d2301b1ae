//! The registry's file: how it is made, opened and kept apart from newer versions of itself.

use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use nix::fcntl::OFlag;
use rusqlite::Connection;
use rusqlite::OpenFlags;

use crate::config::directories;
use crate::config::directories::Directories;
use crate::config::limits::REGISTRY_BUSY_DEADLINE;
use crate::tenant::registry::RegistryError;

/// `PRAGMA user_version` that all the steps below lead to.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// What leads from each version to the next, from an empty file on. A step that was released never
/// changes: there are registries that have taken it.
const STEPS: [&str; 2] = [TENANTS, SETTINGS];

const TENANTS: &str = "
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
";

/// A trigger, since SQLite forgets foreign keys wherever a connection does not ask for them.
const SETTINGS: &str = "
    CREATE TABLE tenant_setting (
        tenant TEXT NOT NULL,
        name   TEXT NOT NULL,
        value  TEXT NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER tenant_setting_goes_with_its_tenant AFTER DELETE ON tenant BEGIN
        DELETE FROM tenant_setting WHERE tenant = OLD.id;
    END;
";

/// A connection that may write; makes directory, file and schema where they are missing.
pub(super) fn open_writable(directories: &Directories) -> Result<Connection, RegistryError> {
    let path = directories.registry();
    make_directory(directories.state())?;
    make_directory(&directories.registry_directory())?;
    take_over_former(directories)?;
    let connection = open(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
    if (0..VERSION).contains(&version(&connection, &path)?) {
        migrate(&connection, &path)?;
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
    directories::make(path, 0o700).map_err(directory_failed(path))
}

fn directory_failed(path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::Directory { path, source }
}

fn open(path: &Path, extra: OpenFlags) -> Result<Connection, RegistryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    let failed = |source| RegistryError::Open {
        path: path.to_owned(),
        source,
    };
    // No link in its place: who may write to its directory is not to say what root opens. Links on
    // the way to the directory are the administrator's.
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    let name = path.file_name().unwrap_or_default();
    let real = parent.map_or_else(|| path.to_owned(), |parent| parent.join(name));
    let flags = flags | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(real, flags).map_err(failed)?;
    connection
        .busy_timeout(REGISTRY_BUSY_DEADLINE)
        .map_err(failed)?;
    // FULL: what a command reported as done is still done after a power cut.
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    Ok(connection)
}

/// One process at a time makes, moves or changes the registry as such.
fn lock(path: &Path) -> Result<Flock<File>, RegistryError> {
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
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| lock_failed(io::Error::from(errno)))
}

/// Earlier versions had the file in the state directory itself. It is moved whole: what lies in its
/// write-ahead log is written into it before.
fn take_over_former(directories: &Directories) -> Result<(), RegistryError> {
    let (former, path) = (directories.former_registry(), directories.registry());
    if !former.exists() {
        return Ok(());
    }
    let _guard = lock(&path)?;
    if path.exists() || !former.exists() {
        return Ok(());
    }
    let connection = open(&former, OpenFlags::empty())?;
    let left: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(RegistryError::query(&former, "PRAGMA wal_checkpoint"))?;
    drop(connection);
    let mut log = former.clone().into_os_string();
    log.push("-wal");
    if left != 0 || Path::new(&log).exists() {
        let busy = io::Error::other("an earlier version of pgs has it open: end it first");
        return Err(directory_failed(&former)(busy));
    }
    std::fs::rename(&former, &path).map_err(directory_failed(&path))?;
    share_with_group(&path)
}

/// Takes the steps that are missing, all or none of them.
///
/// Under a file lock: switching to write-ahead logging fails at once, whatever the busy timeout,
/// where another process does the same.
fn migrate(connection: &Connection, path: &Path) -> Result<(), RegistryError> {
    let _guard = lock(path)?;
    let found = version(connection, path)?;
    let Some(missing) = usize::try_from(found).ok().and_then(|at| STEPS.get(at..)) else {
        return Ok(());
    };
    if found == 0 {
        share_with_group(path)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(RegistryError::query(path, "PRAGMA journal_mode"))?;
    }
    let steps = missing.concat();
    connection
        .execute_batch(&format!(
            "BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;"
        ))
        .map_err(RegistryError::query(path, "CREATE TABLE"))
}

/// The group of the directory is that of a router which runs as its own user; SQLite gives the
/// files beside the registry the same mode.
fn share_with_group(path: &Path) -> Result<(), RegistryError> {
    let share = || {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)?;
        file.set_permissions(Permissions::from_mode(0o660))
    };
    share().map_err(directory_failed(path))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_its_place_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), root.path().join("run"));
        std::fs::create_dir_all(directories.registry_directory()).unwrap();
        let outside = root.path().join("outside");
        std::fs::write(&outside, "").unwrap();
        std::os::unix::fs::symlink(&outside, directories.registry()).unwrap();
        assert!(open_writable(&directories).is_err());
        assert_eq!(std::fs::metadata(&outside).unwrap().len(), 0);
    }
    use crate::tenant::id::TenantId;
    use crate::tenant::registry::Registry;

    /// As the first version of pgs left it.
    fn version_1(directories: &Directories) {
        make_directory(directories.state()).unwrap();
        let connection = Connection::open(directories.former_registry()).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        connection
            .execute_batch(&format!(
                "BEGIN; {TENANTS} PRAGMA user_version = 1;
                 INSERT INTO tenant VALUES
                 ('acme', 'ready', 'enabled', 'postgres:18', 1, 1, NULL, 'delete', 7);
                 COMMIT;"
            ))
            .unwrap();
    }

    fn fixture() -> (tempfile::TempDir, Directories) {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), root.path().join("run"));
        (root, directories)
    }

    #[test]
    fn a_registry_of_the_first_version_keeps_its_tenants_and_gets_what_is_missing() {
        let (_root, directories) = fixture();
        version_1(&directories);
        let registry = Registry::open(&directories).unwrap();
        let acme = TenantId::parse("acme").unwrap();
        let found = registry.find(&acme).unwrap().unwrap();
        assert_eq!((found.created_at, found.blueprint.memory_bytes), (7, 1));
        assert!(registry.settings(&acme).unwrap().is_empty());
        drop(registry);
        let connection = Connection::open(directories.registry()).unwrap();
        assert_eq!(version(&connection, &directories.registry()).unwrap(), 2);
        let schema = |connection: &Connection| -> Vec<String> {
            let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY sql";
            let mut statement = connection.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let (_other, fresh) = fixture();
        let fresh = open_writable(&fresh).unwrap();
        assert_eq!(schema(&connection), schema(&fresh));
    }

    #[test]
    fn many_migrate_at_once_and_each_step_is_taken_once() {
        let (_root, directories) = fixture();
        version_1(&directories);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| open_writable(&directories).unwrap());
            }
        });
        assert_eq!(
            Registry::open(&directories).unwrap().all().unwrap().len(),
            1
        );
    }
}
