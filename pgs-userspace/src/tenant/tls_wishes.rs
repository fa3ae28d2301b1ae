//! What tenants want of TLS before it is known whose a client is.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use rusqlite::Connection;

use crate::config::limits::TLS_WISHES_LIFETIME;
use crate::config::value::Value as _;
use crate::tenant::registry::RegistryError;
use crate::tenant::route::RouteTable;
use crate::tenant::settings::ClientCertificates;
use crate::tenant::settings::TenantSettings;
use crate::tenant::settings::TlsPolicy;

/// Whether any of the tenants that clients can log in to wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TlsWishes {
    /// That its own server ends the TLS: then TLS is to be had without a certificate here.
    pub passthrough: bool,
    /// Certificates from its clients: then everybody is asked for one.
    pub client_certificates: bool,
}

impl TlsWishes {
    /// Reads them.
    fn read(connection: &Connection, defaults: &TenantSettings) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached(
            "SELECT EXISTS (
                 SELECT 1 FROM tenant_setting JOIN tenant ON tenant.id = tenant_setting.tenant
                 WHERE name = ?1 AND (value = ?2) = ?3
                     AND lifecycle = 'ready' AND access = 'enabled'
             )",
        )?;
        let mut any = |name, value: String, equal: bool| {
            statement.query_row((name, value, equal), |row| row.get(0))
        };
        let passthrough = defaults.tls == TlsPolicy::Passthrough;
        let asked = defaults.client_certificates != ClientCertificates::Off;
        Ok(Self {
            passthrough: passthrough || any("tls", TlsPolicy::Passthrough.text(), true)?,
            client_certificates: asked
                || any("client_certificates", ClientCertificates::Off.text(), false)?,
        })
    }
}

impl RouteTable {
    /// What tenants want of TLS, as of [`TLS_WISHES_LIFETIME`] ago at most.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn tls_wishes(&self) -> Result<TlsWishes, RegistryError> {
        if let Some(wishes) = self.wishes.get() {
            return Ok(wishes);
        }
        let (reader, read_at) = (self.take()?, Instant::now());
        let wishes = TlsWishes::read(&reader.connection, &self.defaults());
        let wishes = wishes.map_err(RegistryError::query(&self.registry, "SELECT"))?;
        self.put_back(reader);
        self.wishes.set(read_at, wishes);
        Ok(wishes)
    }
}

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<Option<(Instant, TlsWishes)>>);

impl Remembered {
    /// What was read a moment ago.
    pub(super) fn get(&self) -> Option<TlsWishes> {
        let remembered = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, wishes) = remembered?;
        (read_at.elapsed() < TLS_WISHES_LIFETIME).then_some(wishes)
    }

    /// What was read does not hold any more.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Read at `read_at`.
    pub(super) fn set(&self, read_at: Instant, wishes: TlsWishes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((read_at, wishes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::directories::Directories;
    use crate::tenant::id::TenantId;
    use crate::tenant::record::Access;
    use crate::tenant::record::Blueprint;
    use crate::tenant::record::VolumeFate;
    use crate::tenant::registry::Registry;
    use crate::tenant::stored_settings::SettingsChange;

    struct Fixture {
        _root: tempfile::TempDir,
        directories: Directories,
        registry: Registry,
        acme: TenantId,
    }

    fn fixture() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().join("state"), root.path().join("run"));
        let registry = Registry::open(&directories).unwrap();
        let acme = TenantId::parse("acme").unwrap();
        let blueprint = Blueprint {
            image: "postgres:18".to_owned(),
            memory_bytes: 1,
            cpu_millis: 1,
            network: None,
        };
        registry
            .begin_create(&acme, &blueprint, VolumeFate::Delete)
            .unwrap();
        registry.finish_create(&acme, Access::Enabled).unwrap();
        Fixture {
            _root: root,
            directories,
            registry,
            acme,
        }
    }

    impl Fixture {
        /// A table of its own each time: it remembers.
        fn wishes(&self, defaults: TenantSettings) -> TlsWishes {
            let table = RouteTable::open(&self.directories, defaults).unwrap();
            table.tls_wishes().unwrap()
        }

        fn set(&self, name: &str, value: &str) {
            let mut change = SettingsChange::default();
            change.set(name, value).unwrap();
            assert!(self.registry.change_settings(&self.acme, &change).unwrap());
        }
    }

    #[test]
    fn one_tenant_that_is_let_in_is_enough() {
        let fixture = fixture();
        let wishes = || fixture.wishes(TenantSettings::default());
        let (passthrough, client_certificates) = (true, true);
        assert_eq!(wishes(), TlsWishes::default());
        fixture.set("tls", "required");
        fixture.set("client_certificates", "off");
        assert_eq!(wishes(), TlsWishes::default());
        fixture.set("tls", "passthrough");
        assert_eq!(
            wishes(),
            TlsWishes {
                passthrough,
                client_certificates: false
            }
        );
        fixture.set("client_certificates", "optional");
        assert_eq!(
            wishes(),
            TlsWishes {
                passthrough,
                client_certificates
            }
        );
        let disabled = Access::Disabled;
        fixture
            .registry
            .change_access(&fixture.acme, disabled)
            .unwrap();
        assert_eq!(wishes(), TlsWishes::default());
        let defaults = TenantSettings {
            tls: TlsPolicy::Passthrough,
            client_certificates: ClientCertificates::Required,
            ..TenantSettings::default()
        };
        assert_eq!(
            fixture.wishes(defaults),
            TlsWishes {
                passthrough,
                client_certificates
            }
        );
    }

    #[test]
    fn what_was_read_is_remembered_for_a_while() {
        let wishes = TlsWishes {
            passthrough: true,
            client_certificates: false,
        };
        let remembered = Remembered::default();
        assert_eq!(remembered.get(), None);
        remembered.set(Instant::now(), wishes);
        assert_eq!(remembered.get(), Some(wishes));
        let long_ago = Instant::now().checked_sub(TLS_WISHES_LIFETIME).unwrap();
        remembered.set(long_ago, wishes);
        assert_eq!(remembered.get(), None);
    }
}
