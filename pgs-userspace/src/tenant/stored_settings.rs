//! The settings of tenants in the registry: what was decided for one, as text.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::params;

use crate::config::limits::SETTING_BYTES_MAX;
use crate::config::section::Section as _;
use crate::tenant::id::TenantId;
use crate::tenant::registry::Registry;
use crate::tenant::registry::RegistryError;
use crate::tenant::settings::InvalidSetting;
use crate::tenant::settings::TenantSettings;
use crate::tenant::settings::find;

/// What `pgs set` changes at once, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettingsChange {
    /// By name; `None` goes back to the default.
    values: BTreeMap<String, Option<String>>,
}

impl SettingsChange {
    /// This one gets a value.
    ///
    /// # Errors
    /// There is no such setting, or its value does not do.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), InvalidSetting> {
        let key = find(name)?;
        TenantSettings::default().set(name, text)?;
        if text.len() > SETTING_BYTES_MAX {
            return Err(InvalidSetting::Value {
                name: key.name,
                reason: format!("is longer than {SETTING_BYTES_MAX} bytes"),
            });
        }
        self.values
            .insert(key.name.to_owned(), Some(text.to_owned()));
        Ok(())
    }

    /// This one goes back to the default. One that is stored need not be known: a newer version may
    /// have stored it.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn unset(
        &mut self,
        name: &str,
        stored: &BTreeMap<String, String>,
    ) -> Result<(), InvalidSetting> {
        if !stored.contains_key(name) {
            find(name)?;
        }
        self.values.insert(name.to_owned(), None);
        Ok(())
    }

    /// What is changed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// What would be stored afterwards.
    pub fn applied_to(&self, stored: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut stored = stored.clone();
        for (name, value) in &self.values {
            match value {
                Some(value) => stored.insert(name.clone(), value.clone()),
                None => stored.remove(name),
            };
        }
        stored
    }
}

/// What holds for a tenant: the defaults, and on top what was decided for it.
///
/// # Errors
/// Something of it is no setting of this version. Who may connect must not be guessed.
pub fn resolve<'a>(
    defaults: &TenantSettings,
    stored: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<TenantSettings, InvalidSetting> {
    let mut settings = defaults.clone();
    for (name, text) in stored {
        settings.set(name, text)?;
    }
    Ok(settings)
}

impl Registry {
    /// What was decided for a tenant.
    ///
    /// # Errors
    /// The statement failed.
    pub fn settings(&self, tenant: &TenantId) -> Result<BTreeMap<String, String>, RegistryError> {
        let stored = stored(&self.connection, tenant);
        let stored = stored.map_err(RegistryError::query(&self.path, "SELECT"))?;
        Ok(stored.into_iter().collect())
    }

    /// Changes all of it or nothing. False where no ready tenant has that id.
    ///
    /// # Errors
    /// A statement failed.
    pub fn change_settings(
        &self,
        tenant: &TenantId,
        change: &SettingsChange,
    ) -> Result<bool, RegistryError> {
        let apply = || {
            let transaction = self.connection.unchecked_transaction()?;
            for (name, value) in &change.values {
                match value {
                    Some(value) => transaction.execute(
                        "INSERT INTO tenant_setting (tenant, name, value)
                         SELECT id, ?2, ?3 FROM tenant WHERE id = ?1 AND lifecycle = 'ready'
                         ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value",
                        params![tenant.as_str(), name, value],
                    )?,
                    None => transaction.execute(
                        "DELETE FROM tenant_setting WHERE tenant = ?1 AND name = ?2",
                        params![tenant.as_str(), name],
                    )?,
                };
            }
            let ready = transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM tenant WHERE id = ?1 AND lifecycle = 'ready')",
                [tenant.as_str()],
                |row| row.get(0),
            )?;
            transaction.commit()?;
            Ok(ready)
        };
        apply().map_err(RegistryError::query(&self.path, "INSERT or DELETE"))
    }
}

/// The rows of one tenant.
pub(super) fn stored(
    connection: &Connection,
    tenant: &TenantId,
) -> rusqlite::Result<Vec<(String, String)>> {
    connection
        .prepare_cached("SELECT name, value FROM tenant_setting WHERE tenant = ?1")?
        .query_map([tenant.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Checks what holds between the values, too.
///
/// # Errors
/// What does not hold.
pub fn check(
    defaults: &TenantSettings,
    stored: &BTreeMap<String, String>,
) -> Result<TenantSettings, InvalidSetting> {
    let pairs = stored
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let settings = resolve(defaults, pairs)?;
    settings.check().map_err(InvalidSetting::Contradiction)?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::directories::Directories;
    use crate::tenant::record::Access;
    use crate::tenant::record::Blueprint;
    use crate::tenant::record::VolumeFate;

    fn fixture() -> (tempfile::TempDir, Registry, TenantId) {
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
        (root, registry, acme)
    }

    fn set(pairs: &[(&str, &str)]) -> SettingsChange {
        let mut change = SettingsChange::default();
        for (name, text) in pairs {
            change.set(name, text).unwrap();
        }
        change
    }

    #[test]
    fn what_is_set_is_kept_until_it_is_unset() {
        let (_root, registry, acme) = fixture();
        let change = set(&[("allow", "192.0.2.0/24"), ("connections_max", "5")]);
        assert!(registry.change_settings(&acme, &change).unwrap());
        let stored = registry.settings(&acme).unwrap();
        assert_eq!(stored["allow"], "192.0.2.0/24");
        let settings = check(&TenantSettings::default(), &stored).unwrap();
        assert_eq!(settings.connections_max, 5);
        let mut change = set(&[("connections_max", "6")]);
        change.unset("allow", &stored).unwrap();
        assert_eq!(change.applied_to(&stored)["connections_max"], "6");
        assert!(registry.change_settings(&acme, &change).unwrap());
        assert_eq!(registry.settings(&acme).unwrap().len(), 1);
    }

    #[test]
    fn they_go_with_their_tenant() {
        let (_root, registry, acme) = fixture();
        let change = set(&[("connections_max", "5")]);
        assert!(registry.change_settings(&acme, &change).unwrap());
        registry.forget(&acme).unwrap();
        assert!(registry.settings(&acme).unwrap().is_empty());
        assert!(!registry.change_settings(&acme, &change).unwrap());
        assert!(registry.settings(&acme).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_a_setting_is_not_stored() {
        let mut change = SettingsChange::default();
        assert!(change.set("allow", "everybody").is_err());
        assert!(change.set("alow", "").is_err());
        assert!(change.unset("alow", &BTreeMap::new()).is_err());
        let long = " ".repeat(SETTING_BYTES_MAX + 1);
        assert!(change.set("allow", &long).is_err());
        assert_eq!(change.names().count(), 0);
    }

    #[test]
    fn what_a_newer_version_may_have_stored_is_not_guessed() {
        let defaults = TenantSettings::default();
        assert!(resolve(&defaults, [("new_one", "x")].into_iter()).is_err());
        assert!(resolve(&defaults, [("allow", "x")].into_iter()).is_err());
        let (_root, registry, acme) = fixture();
        let insert = "INSERT INTO tenant_setting VALUES ('acme', 'new_one', 'x')";
        registry.connection.execute(insert, []).unwrap();
        let stored = registry.settings(&acme).unwrap();
        assert!(check(&defaults, &stored).is_err());
        let mut change = SettingsChange::default();
        change.unset("new_one", &stored).unwrap();
        assert!(registry.change_settings(&acme, &change).unwrap());
        assert!(registry.settings(&acme).unwrap().is_empty());
    }
}
