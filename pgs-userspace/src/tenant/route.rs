//! Which tenant a startup packet is for, asked once per connection.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;

use rusqlite::Connection;
use rusqlite::OptionalExtension;

use crate::config::directories::Directories;
use crate::config::limits::ROUTE_READERS_IDLE_MAX;
use crate::tenant::id::TenantId;
pub use crate::tenant::record::Access;
use crate::tenant::registry::RegistryError;
use crate::tenant::registry::tenant_id;
use crate::tenant::schema;
use crate::tenant::settings::TenantSettings;
use crate::tenant::stored_settings::resolve;
use crate::tenant::stored_settings::stored;
use crate::tenant::tls_wishes::Remembered;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Whose server.
    pub tenant: TenantId,
    /// Whether clients may log in.
    pub access: Access,
    /// Directory of the server's Unix socket on the host.
    pub socket_directory: PathBuf,
    /// What holds for its clients. Nothing but the defaults where access is off: whoever is refused
    /// must not see by the time that it takes that there is such a tenant.
    pub settings: TenantSettings,
}

/// The registry as the router sees it: read at every startup packet, so that a change made by any
/// process counts from the next one on.
///
/// Every caller has an SQLite connection to itself while it asks, taken from a pool of idle ones.
/// The pool's lock is held for a push or a pop, never across a query.
#[derive(Debug)]
pub struct RouteTable {
    pub(super) registry: PathBuf,
    directories: Directories,
    defaults: RwLock<Arc<TenantSettings>>,
    pub(super) wishes: Remembered,
    idle: Mutex<Vec<Reader>>,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) connection: Connection,
    file: FileIdentity,
}

/// Tells a registry that was restored from a backup from the one that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl RouteTable {
    /// Opens the registry of an installation; makes an empty one where there is none. `defaults`
    /// hold for a tenant as far as nothing else was decided for it.
    ///
    /// # Errors
    /// The directory or the file cannot be made or opened, or another version wrote it.
    pub fn open(
        directories: &Directories,
        defaults: TenantSettings,
    ) -> Result<Self, RegistryError> {
        drop(schema::open_writable(directories)?);
        let table = Self {
            registry: directories.registry(),
            directories: directories.clone(),
            defaults: RwLock::new(Arc::new(defaults)),
            wishes: Remembered::default(),
            idle: Mutex::new(Vec::new()),
        };
        table.put_back(table.open_reader()?);
        Ok(table)
    }

    /// What holds from now on for a tenant of which nothing else was said.
    pub fn set_defaults(&self, defaults: TenantSettings) {
        *self
            .defaults
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(defaults);
        self.wishes.forget();
    }

    pub(super) fn defaults(&self) -> Arc<TenantSettings> {
        Arc::clone(&self.defaults.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The tenant called like the user, else the tenant called like the database. A tenant that is
    /// being created or removed has no route.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn find(&self, user: &str, database: &str) -> Result<Option<Route>, RegistryError> {
        let reader = self.take()?;
        let found = self.look_up(&reader, user, database)?;
        self.put_back(reader);
        Ok(found)
    }

    /// What holds for a tenant, whether or not its access is on.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn settings(&self, tenant: &TenantId) -> Result<TenantSettings, RegistryError> {
        let reader = self.take()?;
        let settings = self.settings_of(&reader, tenant)?;
        self.put_back(reader);
        Ok(settings)
    }

    fn settings_of(
        &self,
        reader: &Reader,
        tenant: &TenantId,
    ) -> Result<TenantSettings, RegistryError> {
        let stored = stored(&reader.connection, tenant);
        let stored = stored.map_err(RegistryError::query(&self.registry, "SELECT"))?;
        let pairs = stored
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()));
        resolve(&self.defaults(), pairs).map_err(|source| RegistryError::Setting {
            path: self.registry.clone(),
            tenant: tenant.to_string(),
            source,
        })
    }

    fn look_up(
        &self,
        reader: &Reader,
        user: &str,
        database: &str,
    ) -> Result<Option<Route>, RegistryError> {
        let found = reader.find(user, database);
        let found = found.map_err(RegistryError::query(&self.registry, "SELECT"))?;
        let Some((tenant, access)) = found else {
            return Ok(None);
        };
        let settings = match access {
            Access::Disabled => TenantSettings::clone(&self.defaults()),
            Access::Enabled => self.settings_of(reader, &tenant)?,
        };
        let socket_directory = self.directories.socket_directory(&tenant);
        Ok(Some(Route {
            tenant,
            access,
            socket_directory,
            settings,
        }))
    }

    pub(super) fn take(&self) -> Result<Reader, RegistryError> {
        let current = file_identity(&self.registry)?;
        // In a statement of its own: a `while let` would hold the lock across its body.
        let pop = || {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
        };
        loop {
            match pop() {
                Some(reader) if reader.file == current => return Ok(reader),
                Some(stale) => drop(stale),
                None => return self.open_reader(),
            }
        }
    }

    pub(super) fn put_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < ROUTE_READERS_IDLE_MAX {
            idle.push(reader);
        }
    }

    fn open_reader(&self) -> Result<Reader, RegistryError> {
        let file = file_identity(&self.registry)?;
        Ok(Reader {
            connection: schema::open_reader(&self.registry)?,
            file,
        })
    }
}

impl Reader {
    fn find(&self, user: &str, database: &str) -> rusqlite::Result<Option<(TenantId, Access)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, access FROM tenant WHERE id IN (?1, ?2) AND lifecycle = 'ready'
             ORDER BY id = ?1 DESC LIMIT 1",
        )?;
        statement
            .query_row([user, database], |row| Ok((tenant_id(row)?, row.get(1)?)))
            .optional()
    }
}

fn file_identity(path: &Path) -> Result<FileIdentity, RegistryError> {
    let metadata = std::fs::metadata(path).map_err(|source| RegistryError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::Instant;

    use super::*;
    use crate::tenant::record::Blueprint;
    use crate::tenant::record::VolumeFate;
    use crate::tenant::registry::Registry;
    use crate::tenant::stored_settings::SettingsChange;

    fn fixture() -> (tempfile::TempDir, Directories) {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), root.path().join("run"));
        (root, directories)
    }

    fn add(registry: &Registry, name: &str, access: Access) -> TenantId {
        let image = "postgres:18".to_owned();
        let blueprint = Blueprint {
            image,
            memory_bytes: 1,
            cpu_millis: 1,
            network: None,
        };
        let id = TenantId::parse(name).unwrap();
        registry
            .begin_create(&id, &blueprint, VolumeFate::Delete)
            .unwrap();
        registry.finish_create(&id, access).unwrap();
        id
    }

    fn names(route: Option<Route>) -> Option<String> {
        route.map(|route| route.tenant.to_string())
    }

    #[test]
    fn the_user_counts_before_the_database() {
        let (_root, directories) = fixture();
        let registry = Registry::open(&directories).unwrap();
        add(&registry, "acme", Access::Enabled);
        add(&registry, "bob", Access::Disabled);
        let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
        let route = table.find("bob", "acme").unwrap().unwrap();
        assert_eq!(
            (route.tenant.as_str(), route.access),
            ("bob", Access::Disabled)
        );
        assert_eq!(
            route.socket_directory,
            directories.state().join("sockets/bob")
        );
        assert_eq!(
            names(table.find("acme", "bob").unwrap()).as_deref(),
            Some("acme")
        );
        assert_eq!(
            names(table.find("reader", "acme").unwrap()).as_deref(),
            Some("acme")
        );
        assert_eq!(
            names(table.find("acme", "").unwrap()).as_deref(),
            Some("acme")
        );
        for (user, database) in [
            ("", ""),
            ("Acme", "x"),
            ("acme\0", "x"),
            ("' OR 1=1 --", "%"),
        ] {
            assert_eq!(table.find(user, database).unwrap(), None);
        }
    }

    #[test]
    fn a_change_by_another_connection_counts_at_the_next_call() {
        let (_root, directories) = fixture();
        let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
        assert_eq!(table.find("acme", "acme").unwrap(), None);
        let registry = Registry::open(&directories).unwrap();
        let acme = add(&registry, "acme", Access::Disabled);
        let access = || {
            table
                .find("acme", "acme")
                .unwrap()
                .map(|route| route.access)
        };
        assert_eq!(access(), Some(Access::Disabled));
        registry.change_access(&acme, Access::Enabled).unwrap();
        assert_eq!(access(), Some(Access::Enabled));
        registry.begin_remove(&acme, VolumeFate::Delete).unwrap();
        assert_eq!(access(), None, "a tenant on its way out has no route");
    }

    #[test]
    fn settings_come_with_the_route_on_top_of_the_defaults() {
        let (_root, directories) = fixture();
        let registry = Registry::open(&directories).unwrap();
        let acme = add(&registry, "acme", Access::Enabled);
        let defaults = TenantSettings {
            connection_burst: 7,
            ..TenantSettings::default()
        };
        let table = RouteTable::open(&directories, defaults.clone()).unwrap();
        let settings = || table.find("acme", "x").map(|route| route.unwrap().settings);
        assert_eq!(settings().unwrap(), defaults);
        let mut change = SettingsChange::default();
        change.set("connections_max", "3").unwrap();
        assert!(registry.change_settings(&acme, &change).unwrap());
        let found = settings().unwrap();
        assert_eq!((found.connections_max, found.connection_burst), (3, 7));
        Connection::open(directories.registry())
            .unwrap()
            .execute("UPDATE tenant_setting SET value = 'x'", [])
            .unwrap();
        let error = settings().unwrap_err();
        assert!(matches!(error, RegistryError::Setting { .. }), "{error}");
    }

    #[test]
    fn a_replaced_registry_is_noticed() {
        let (_root, directories) = fixture();
        let registry = Registry::open(&directories).unwrap();
        add(&registry, "old", Access::Enabled);
        drop(registry);
        let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
        assert!(table.find("old", "x").unwrap().is_some());
        drop(table.take().unwrap());
        for suffix in ["", "-wal", "-shm"] {
            let file = format!("registry.sqlite{suffix}");
            let path = directories.registry_directory().join(file);
            if path.exists() {
                std::fs::remove_file(path).unwrap();
            }
        }
        assert!(table.find("old", "x").is_err(), "the file is gone");
        add(
            &Registry::open(&directories).unwrap(),
            "new",
            Access::Enabled,
        );
        assert_eq!(table.find("old", "x").unwrap(), None);
        assert_eq!(
            names(table.find("new", "x").unwrap()).as_deref(),
            Some("new")
        );
    }

    #[test]
    fn answers_many_threads_quickly_while_another_process_writes() {
        let (_root, directories) = fixture();
        let registry = Registry::open(&directories).unwrap();
        let count = 1000;
        let ids: Vec<_> = (0..count)
            .map(|n| add(&registry, &format!("t{n}"), Access::Enabled))
            .collect();
        let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
        // A transaction that stays open: readers of the write-ahead log do not wait for it.
        let writer = Connection::open(directories.registry()).unwrap();
        writer
            .execute_batch("BEGIN IMMEDIATE; UPDATE tenant SET access = 'disabled'")
            .unwrap();
        let calls = 500;
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (table, ids) = (&table, &ids);
                scope.spawn(move || {
                    for call in 0..calls {
                        let id = &ids[(thread * 131 + call * 7) % count];
                        let route = table.find(id.as_str(), "x").unwrap().unwrap();
                        assert_eq!((&route.tenant, route.access), (id, Access::Enabled));
                    }
                });
            }
        });
        let each = begin.elapsed() / (8 * u32::try_from(calls).unwrap());
        println!("{each:?} a call, {} threads", 8);
        assert!(each < Duration::from_millis(2), "{each:?} a call");
        assert!(table.idle.lock().unwrap().len() <= ROUTE_READERS_IDLE_MAX);
    }
}
