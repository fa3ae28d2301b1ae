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
#[path = "route_tests.rs"]
mod tests;
