//! Which tenant a startup packet is for, asked once per connection.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::time::Duration;

use rusqlite::Connection;

use crate::config::directories::Directories;
use crate::config::limits::ROUTE_READERS_IDLE_MAX;
use crate::tenant::id::TenantId;
use crate::tenant::record::Access;
use crate::tenant::registry::RegistryError;
use crate::tenant::registry::tenant_id;
use crate::tenant::schema;
use crate::tenant::settings::TenantSettings;
use crate::tenant::stored_settings::resolve;
use crate::tenant::stored_settings::stored;
use crate::tenant::tls_wishes::Remembered;

/// Where a startup packet leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To this one, the first named that lets the client in.
    Tenant(Route),
    /// To none. This one was named first, and keeps the client out.
    KeptOut(KeptOut),
    /// To none: there is no tenant of these names.
    Unknown,
}

impl Destination {
    /// The one that lets the client in.
    pub fn tenant(self) -> Option<Route> {
        match self {
            Self::Tenant(route) => Some(route),
            Self::KeptOut(_) | Self::Unknown => None,
        }
    }

    /// Whose it is, for the operator: whoever is kept out is not told.
    pub fn id(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant(route) => Some(&route.tenant),
            Self::KeptOut(kept_out) => Some(&kept_out.tenant),
            Self::Unknown => None,
        }
    }

    /// How long a login may take, where this lets the client in.
    pub fn login_deadline(&self) -> Option<Duration> {
        match self {
            Self::Tenant(route) => Some(route.settings.login_deadline),
            Self::KeptOut(_) | Self::Unknown => None,
        }
    }

    /// What was named later counts where this leads to no tenant. Of two that keep the client out
    /// the first is the one that it is about.
    #[must_use]
    pub fn or(self, later: Self) -> Self {
        match (self, later) {
            (Self::Unknown, later) | (Self::KeptOut(_), later @ Self::Tenant(_)) => later,
            (first, _) => first,
        }
    }
}

/// A tenant that does not let a client in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOut {
    /// Which one.
    pub tenant: TenantId,
    /// For the operator's log.
    pub why: WhyKeptOut,
}

/// Why a tenant does not let a client in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyKeptOut {
    /// It lets in nobody.
    Disabled,
    /// It lets in others.
    AddressNotAllowed,
}

impl WhyKeptOut {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Disabled => "its access is disabled",
            Self::AddressNotAllowed => "it does not allow the address",
        }
    }
}

/// A tenant that lets a client in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Whose server.
    pub tenant: TenantId,
    /// Directory of the server's Unix socket on the host.
    pub socket_directory: PathBuf,
    /// What holds for its clients.
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

    /// The tenant called like the user, else the tenant called like the database, of those that
    /// let a client of that address in. A tenant that is being created or removed has no route.
    ///
    /// One that keeps the client out must not stand before another: by the other's answer anybody
    /// could see that there is such a tenant.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn find(
        &self,
        user: &str,
        database: &str,
        client: IpAddr,
    ) -> Result<Destination, RegistryError> {
        let reader = self.take()?;
        let found = self.look_up(&reader, user, database, client)?;
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
        client: IpAddr,
    ) -> Result<Destination, RegistryError> {
        let named = reader.find(user, database);
        let named = named.map_err(RegistryError::query(&self.registry, "SELECT"))?;
        let mut destination = Destination::Unknown;
        for (tenant, access) in named {
            let one = self.one(reader, tenant, access, client)?;
            destination = destination.or(one);
            if matches!(destination, Destination::Tenant(_)) {
                break;
            }
        }
        Ok(destination)
    }

    fn one(
        &self,
        reader: &Reader,
        tenant: TenantId,
        access: Access,
        client: IpAddr,
    ) -> Result<Destination, RegistryError> {
        let kept_out = |tenant, why| Ok(Destination::KeptOut(KeptOut { tenant, why }));
        if access == Access::Disabled {
            return kept_out(tenant, WhyKeptOut::Disabled);
        }
        let settings = self.settings_of(reader, &tenant)?;
        if !settings.allows(client) {
            return kept_out(tenant, WhyKeptOut::AddressNotAllowed);
        }
        let socket_directory = self.directories.socket_directory(&tenant);
        Ok(Destination::Tenant(Route {
            tenant,
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
    /// Those there are, the user's first.
    fn find(&self, user: &str, database: &str) -> rusqlite::Result<Vec<(TenantId, Access)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, access FROM tenant WHERE id IN (?1, ?2) AND lifecycle = 'ready'
             ORDER BY id = ?1 DESC",
        )?;
        let found = statement.query_map([user, database], |row| Ok((tenant_id(row)?, row.get(1)?)));
        found?.collect()
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
