//! The registry: every tenant and where it stands, in one SQLite file.

use std::path::PathBuf;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::config::directories::Directories;
pub use crate::tenant::error::RegistryError;
use crate::tenant::id::TenantId;
use crate::tenant::record::Access;
use crate::tenant::record::Blueprint;
use crate::tenant::record::Lifecycle;
use crate::tenant::record::Tenant;
use crate::tenant::record::VolumeFate;
use crate::tenant::schema;

/// The registry, opened for commands: reads and writes, one process among several.
#[derive(Debug)]
pub struct Registry {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

impl Registry {
    /// Opens the registry of an installation; makes it where it is missing.
    ///
    /// # Errors
    /// The directory or the file cannot be made or opened, or another version wrote it.
    pub fn open(directories: &Directories) -> Result<Self, RegistryError> {
        let connection = schema::open_writable(directories)?;
        Ok(Self {
            connection,
            path: directories.registry(),
        })
    }

    /// Writes down a tenant that is about to be made: creating, access disabled.
    ///
    /// Returns false where the registry knows the id already.
    ///
    /// # Errors
    /// The statement failed.
    pub fn begin_create(
        &self,
        id: &TenantId,
        blueprint: &Blueprint,
        volume_fate: VolumeFate,
    ) -> Result<bool, RegistryError> {
        let inserted = self.connection.execute(
            "INSERT INTO tenant (id, lifecycle, access, image, memory_bytes, cpu_millis, network,
                                 volume_fate, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
            params![
                id.as_str(),
                Lifecycle::Creating,
                Access::Disabled,
                blueprint.image,
                // SQLite's integers are signed; no limit of a container comes near.
                i64::try_from(blueprint.memory_bytes).unwrap_or(i64::MAX),
                blueprint.cpu_millis,
                blueprint.network,
                volume_fate,
                seconds_since_epoch(),
            ],
        );
        let inserted = inserted.map_err(RegistryError::query(&self.path, "INSERT"))?;
        Ok(inserted == 1)
    }

    /// The tenant exists from now on.
    ///
    /// # Errors
    /// The statement failed.
    pub fn finish_create(&self, id: &TenantId, access: Access) -> Result<(), RegistryError> {
        self.update(
            "UPDATE tenant SET lifecycle = 'ready', access = ?2, volume_fate = 'delete'
             WHERE id = ?1 AND lifecycle = 'creating'",
            params![id.as_str(), access],
        )
        .map(drop)
    }

    /// The tenant is about to go. Its access ends with this statement.
    ///
    /// # Errors
    /// The statement failed.
    pub fn begin_remove(&self, id: &TenantId, fate: VolumeFate) -> Result<bool, RegistryError> {
        self.update(
            "UPDATE tenant SET lifecycle = 'removing', access = 'disabled', volume_fate = ?2
             WHERE id = ?1",
            params![id.as_str(), fate],
        )
    }

    /// Nothing is left of the tenant.
    ///
    /// # Errors
    /// The statement failed.
    pub fn forget(&self, id: &TenantId) -> Result<(), RegistryError> {
        self.connection
            .execute("DELETE FROM tenant WHERE id = ?1", [id.as_str()])
            .map(drop)
            .map_err(RegistryError::query(&self.path, "DELETE"))
    }

    /// Lets clients in, or no longer. False where no ready tenant has that id.
    ///
    /// # Errors
    /// The statement failed.
    pub fn change_access(&self, id: &TenantId, access: Access) -> Result<bool, RegistryError> {
        self.update(
            "UPDATE tenant SET access = ?2 WHERE id = ?1 AND lifecycle = 'ready'",
            params![id.as_str(), access],
        )
    }

    /// One tenant.
    ///
    /// # Errors
    /// The statement failed.
    pub fn find(&self, id: &TenantId) -> Result<Option<Tenant>, RegistryError> {
        self.connection
            .prepare_cached(&format!("{SELECT} WHERE id = ?1"))
            .and_then(|mut statement| statement.query_row([id.as_str()], tenant).optional())
            .map_err(RegistryError::query(&self.path, "SELECT"))
    }

    /// Every tenant, in the order of their ids.
    ///
    /// # Errors
    /// The statement failed.
    pub fn all(&self) -> Result<Vec<Tenant>, RegistryError> {
        let rows = || {
            let mut statement = self
                .connection
                .prepare_cached(&format!("{SELECT} ORDER BY id"))?;
            statement
                .query_map([], tenant)?
                .collect::<rusqlite::Result<_>>()
        };
        rows().map_err(RegistryError::query(&self.path, "SELECT"))
    }

    fn update(
        &self,
        statement: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<bool, RegistryError> {
        self.connection
            .execute(statement, parameters)
            .map(|rows| rows == 1)
            .map_err(RegistryError::query(&self.path, "UPDATE"))
    }
}

const SELECT: &str = "SELECT id, lifecycle, access, image, memory_bytes, cpu_millis, network,
                             volume_fate, created_at FROM tenant";

fn tenant(row: &Row<'_>) -> rusqlite::Result<Tenant> {
    let blueprint = Blueprint {
        image: row.get(3)?,
        memory_bytes: row.get(4)?,
        cpu_millis: row.get(5)?,
        network: row.get(6)?,
    };
    Ok(Tenant {
        id: tenant_id(row)?,
        lifecycle: row.get(1)?,
        access: row.get(2)?,
        blueprint,
        volume_fate: row.get(7)?,
        created_at: row.get(8)?,
    })
}

/// The id in column 0, checked again: the file may have been edited by hand.
pub(super) fn tenant_id(row: &Row<'_>) -> rusqlite::Result<TenantId> {
    let text: String = row.get(0)?;
    TenantId::parse(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn seconds_since_epoch() -> i64 {
    // A clock before 1970 gives 0, and a wrong clock is no reason to fail.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TenantId {
        TenantId::parse(text).unwrap()
    }

    fn blueprint() -> Blueprint {
        let image = "postgres:18".to_owned();
        Blueprint {
            image,
            memory_bytes: 1 << 30,
            cpu_millis: 1500,
            network: None,
        }
    }

    fn fixture() -> (tempfile::TempDir, Directories) {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), root.path().join("run"));
        (root, directories)
    }

    #[test]
    fn a_tenant_goes_through_its_life() {
        let (_root, directories) = fixture();
        let registry = Registry::open(&directories).unwrap();
        let acme = id("acme");
        assert!(
            registry
                .begin_create(&acme, &blueprint(), VolumeFate::Delete)
                .unwrap()
        );
        assert!(
            !registry
                .begin_create(&acme, &blueprint(), VolumeFate::Keep)
                .unwrap()
        );
        let found = registry.find(&acme).unwrap().unwrap();
        assert_eq!(
            (found.lifecycle, found.access),
            (Lifecycle::Creating, Access::Disabled)
        );
        assert_eq!(
            (found.blueprint, found.volume_fate),
            (blueprint(), VolumeFate::Delete)
        );
        assert!(
            !registry.change_access(&acme, Access::Enabled).unwrap(),
            "not ready yet"
        );

        registry.finish_create(&acme, Access::Disabled).unwrap();
        assert!(registry.change_access(&acme, Access::Enabled).unwrap());
        assert!(registry.begin_remove(&acme, VolumeFate::Keep).unwrap());
        let found = registry.find(&acme).unwrap().unwrap();
        assert_eq!(
            (found.lifecycle, found.access),
            (Lifecycle::Removing, Access::Disabled)
        );
        assert_eq!(found.volume_fate, VolumeFate::Keep);
        registry.forget(&acme).unwrap();
        assert_eq!(registry.find(&acme).unwrap(), None);
        assert!(!registry.begin_remove(&acme, VolumeFate::Keep).unwrap());
    }

    #[test]
    fn survives_being_opened_again_and_lists_in_order() {
        let (_root, directories) = fixture();
        for name in ["zoe", "acme", "bob"] {
            let registry = Registry::open(&directories).unwrap();
            registry
                .begin_create(&id(name), &blueprint(), VolumeFate::Delete)
                .unwrap();
        }
        let all = Registry::open(&directories).unwrap().all().unwrap();
        let names: Vec<_> = all.iter().map(|tenant| tenant.id.as_str()).collect();
        assert_eq!(names, ["acme", "bob", "zoe"]);
    }

    #[test]
    fn many_open_and_write_at_once() {
        let (_root, directories) = fixture();
        std::thread::scope(|scope| {
            for number in 0..16 {
                let directories = &directories;
                scope.spawn(move || {
                    let registry = Registry::open(directories).unwrap();
                    let name = id(&format!("t{number}"));
                    assert!(
                        registry
                            .begin_create(&name, &blueprint(), VolumeFate::Delete)
                            .unwrap()
                    );
                    registry.finish_create(&name, Access::Enabled).unwrap();
                });
            }
        });
        let all = Registry::open(&directories).unwrap().all().unwrap();
        assert_eq!(all.len(), 16);
        assert!(
            all.iter()
                .all(|tenant| tenant.lifecycle == Lifecycle::Ready)
        );
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let (_root, directories) = fixture();
        drop(Registry::open(&directories).unwrap());
        let connection = Connection::open(directories.registry()).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let error = Registry::open(&directories).unwrap_err();
        assert!(
            matches!(
                error,
                RegistryError::Version {
                    found: 99,
                    known: schema::VERSION,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error() {
        let (_root, directories) = fixture();
        std::fs::create_dir_all(directories.registry_directory()).unwrap();
        std::fs::write(directories.registry(), "x".repeat(4096)).unwrap();
        assert!(Registry::open(&directories).is_err());
    }
}
