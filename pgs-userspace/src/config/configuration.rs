//! The configuration of an installation: every value, and where it comes from.

use std::collections::HashMap;

use crate::config::section::AnySection;
use crate::config::section::Row;
use crate::config::sections::Limits;
use crate::config::sections::ProxyProtocol;
use crate::config::sections::Serve;
use crate::config::sections::Tls;
use crate::tenant::settings::TenantSettings;

/// Everything that an operator may decide for the installation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// What `pgs serve` does.
    pub serve: Serve,
    /// What it bounds.
    pub limits: Limits,
    /// How it encrypts.
    pub tls: Tls,
    /// Whose word it takes for where a client connects from.
    pub proxy_protocol: ProxyProtocol,
    /// What holds for a tenant of which nothing else was said.
    pub tenant_defaults: TenantSettings,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nobody has said anything.
    #[default]
    Default,
    /// The configuration file.
    File,
    /// The command line or the environment.
    CommandLine,
    /// `pgs set`, for one tenant.
    Tenant,
}

impl Origin {
    /// As shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::CommandLine => "command line",
            Self::Tenant => "tenant",
        }
    }
}

impl Configuration {
    /// Every section.
    pub fn sections(&self) -> [&dyn AnySection; 5] {
        let Self {
            serve,
            limits,
            tls,
            proxy_protocol,
            tenant_defaults,
        } = self;
        [serve, limits, tls, proxy_protocol, tenant_defaults]
    }

    /// The section of that name.
    pub fn section_mut(&mut self, name: &str) -> Option<&mut dyn AnySection> {
        let Self {
            serve,
            limits,
            tls,
            proxy_protocol,
            tenant_defaults,
        } = self;
        let sections: [&mut dyn AnySection; 5] =
            [serve, limits, tls, proxy_protocol, tenant_defaults];
        sections.into_iter().find(|section| section.name() == name)
    }

    /// Every key with its value.
    pub fn rows(&self) -> Vec<Row> {
        let sections = self.sections();
        sections.iter().flat_map(|section| section.rows()).collect()
    }
}

/// The tables for the documentation: one for each section.
pub fn markdown() -> String {
    let defaults = Configuration::default();
    let mut tables = String::new();
    for section in defaults.sections() {
        tables += &format!("### `[{}]`\n\n", section.name());
        tables += "| key | value | default | a change counts after | what it is for |\n";
        tables += "|---|---|---|---|---|\n";
        for row in section.rows() {
            let Row {
                name,
                form,
                summary,
                restart,
                value,
                ..
            } = row;
            let after = if restart { "a restart" } else { "`reload`" };
            let default = match value.as_str() {
                "" => "nothing".to_owned(),
                value => format!("`{value}`"),
            };
            tables += &format!("| `{name}` | {form} | {default} | {after} | {summary} |\n");
        }
        tables += "\n";
    }
    tables
}

/// A configuration, and where its values come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effective {
    configuration: Configuration,
    origins: HashMap<(&'static str, &'static str), Origin>,
}

/// Why a value was not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAssigned {
    /// No such section.
    Section,
    /// No such key in it.
    Key,
    /// The value does not do.
    Value(String),
}

impl Effective {
    /// Every value.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The values alone.
    pub fn into_configuration(self) -> Configuration {
        self.configuration
    }

    /// Where one comes from.
    pub fn origin(&self, row: &Row) -> Origin {
        self.origins
            .get(&(row.section, row.name))
            .copied()
            .unwrap_or_default()
    }

    /// Takes a value over; what was said before no longer counts.
    ///
    /// # Errors
    /// There is no such key, or the value does not do.
    pub fn assign(
        &mut self,
        section: &str,
        name: &str,
        text: &str,
        origin: Origin,
    ) -> Result<(), NotAssigned> {
        let section = self
            .configuration
            .section_mut(section)
            .ok_or(NotAssigned::Section)?;
        section
            .assign(name, text)
            .ok_or(NotAssigned::Key)?
            .map_err(NotAssigned::Value)?;
        let row = section.rows().into_iter().find(|row| row.name == name);
        if let Some(row) = row {
            self.origins.insert((row.section, row.name), origin);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_keeps_the_rules_and_reads_as_it_is_written() {
        let defaults = Configuration::default();
        let mut effective = Effective::default();
        for row in defaults.rows() {
            let Row {
                section,
                name,
                value,
                ..
            } = &row;
            let assigned = effective.assign(section, name, value, Origin::File);
            assert_eq!(assigned, Ok(()), "{section}.{name} = {value:?}");
            assert_eq!(effective.origin(&row), Origin::File);
        }
        assert_eq!(effective.configuration(), &defaults);
        for section in defaults.sections() {
            assert_eq!(section.check_all(), Ok(()), "{}", section.name());
        }
    }

    #[test]
    fn the_documentation_has_the_tables_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let documentation = std::fs::read_to_string(path).unwrap();
        let tables = markdown();
        assert!(
            documentation.contains(tables.trim_end()),
            "docs/configuration.md is to contain:\n{tables}"
        );
    }

    #[test]
    fn what_is_said_last_counts_and_what_is_wrong_changes_nothing() {
        let mut effective = Effective::default();
        let mut say = |text, origin| effective.assign("limits", "sessions_max", text, origin);
        assert_eq!(say("7", Origin::File), Ok(()));
        assert_eq!(say("8", Origin::CommandLine), Ok(()));
        assert!(matches!(say("0", Origin::File), Err(NotAssigned::Value(_))));
        assert_eq!(effective.configuration().limits.sessions_max, 8);
        let assigned = effective.assign("limits", "sessions", "1", Origin::File);
        assert_eq!(assigned, Err(NotAssigned::Key));
        let assigned = effective.assign("limit", "sessions_max", "1", Origin::File);
        assert_eq!(assigned, Err(NotAssigned::Section));
        let rows = effective.configuration().rows();
        let row = rows.iter().find(|row| row.name == "sessions_max").unwrap();
        assert_eq!(effective.origin(row), Origin::CommandLine);
    }
}
