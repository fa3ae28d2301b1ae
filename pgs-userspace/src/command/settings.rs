//! `pgs set` and `pgs show`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::cli::configuration::SetArguments;
use crate::cli::configuration::ShowArguments;
use crate::command::Context;
use crate::command::configuration;
use crate::command::lock_ready;
use crate::command::ready_tenant;
use crate::command::reconcile;
use crate::command::server_tls;
use crate::config::configuration::Effective;
use crate::config::configuration::Origin;
use crate::config::section::Section as _;
use crate::error::Error;
use crate::error::Kind;
use crate::output::table::Table;
use crate::tenant::id::TenantId;
use crate::tenant::registry::Registry;
use crate::tenant::settings::InvalidSetting;
use crate::tenant::settings::TenantSettings;
use crate::tenant::stored_settings::SettingsChange;
use crate::tenant::stored_settings::check;

/// Settings that need more than the registry.
const OF_TLS: [&str; 3] = ["tls", "client_certificates", "client_ca"];

/// Decides for one tenant, from its next connection on.
pub(super) async fn set(context: &Context, arguments: SetArguments) -> Result<(), Error> {
    let tenant = TenantId::parse(&arguments.tenant)?;
    let mut change = set_by(&arguments)?;
    let (_, effective) = configuration::read(context)?;
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    // What goes together is checked against what is stored, which must not change meanwhile.
    let (guard, found) = lock_ready(context, &registry, &tenant).await?;
    let stored = registry.settings(&tenant)?;
    for name in &arguments.unset {
        change.unset(name, &stored)?;
    }
    let stored = change.applied_to(&stored);
    let defaults = &effective.configuration().tenant_defaults;
    let settings = check(defaults, &stored)?;
    let of_tls = change.names().any(|name| OF_TLS.contains(&name));
    if of_tls {
        server_tls::check_possible(context, &found, &settings).await?;
    }
    if !registry.change_settings(&tenant, &change)? {
        ready_tenant(&registry, &tenant)?;
    }
    drop(guard);
    if arguments.format.json {
        return print(context, &tenant, &effective, &settings, &stored, true);
    }
    let names: Vec<_> = change.names().collect();
    context.printer.note(&format!(
        "tenant `{tenant}`: {} counts from the next connection on",
        names.join(", ")
    ));
    if of_tls {
        server_tls::advise(context, &tenant, &settings).await;
    }
    Ok(())
}

fn set_by(arguments: &SetArguments) -> Result<SettingsChange, Error> {
    let mut change = SettingsChange::default();
    for pair in &arguments.settings {
        let Some((name, text)) = pair.split_once('=') else {
            let message = format!("`{pair}`: what is it to be?");
            let hint = "write `name=value`, or `--unset name`";
            return Err(Error::new(Kind::Usage, message).with_hint(hint));
        };
        change.set(name.trim(), text.trim())?;
    }
    let both = |name: &&String| change.names().any(|set| set == name.as_str());
    match arguments.unset.iter().find(both) {
        Some(name) => {
            let message = format!("`{name}` cannot be set and unset at once");
            Err(Error::new(Kind::Usage, message))
        }
        None => Ok(change),
    }
}

/// Shows what holds for a tenant.
pub(super) async fn show(context: &Context, arguments: ShowArguments) -> Result<(), Error> {
    let tenant = TenantId::parse(&arguments.tenant)?;
    let (_, effective) = configuration::read(context)?;
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    ready_tenant(&registry, &tenant)?;
    let stored = registry.settings(&tenant)?;
    let settings = check(&effective.configuration().tenant_defaults, &stored);
    let settings = settings.map_err(|error| not_understood(context, &tenant, &stored, error))?;
    let json = arguments.format.json;
    print(context, &tenant, &effective, &settings, &stored, json)
}

/// What is stored was not written by this version, or goes with other defaults only: as it is.
fn not_understood(
    context: &Context,
    tenant: &TenantId,
    stored: &BTreeMap<String, String>,
    error: InvalidSetting,
) -> Error {
    for (name, value) in stored {
        context.printer.note(&format!("stored: {name}={value}"));
    }
    let hint = format!("`pgs set {tenant} --unset NAME` undoes one");
    Error::from(error).with_hint(hint)
}

fn print(
    context: &Context,
    tenant: &TenantId,
    effective: &Effective,
    settings: &TenantSettings,
    stored: &BTreeMap<String, String>,
    json: bool,
) -> Result<(), Error> {
    let rows = effective.configuration().rows();
    let origin = |name: &str| {
        if stored.contains_key(name) {
            return Origin::Tenant;
        }
        rows.iter()
            .find(|row| row.section == TenantSettings::NAME && row.name == name)
            .map_or(Origin::Default, |row| effective.origin(row))
    };
    let settings = TenantSettings::KEYS
        .iter()
        .map(|key| (key.name, (key.text)(settings), origin(key.name)));
    if json {
        let settings: serde_json::Map<_, _> = settings
            .map(|(name, value, origin)| {
                (name.to_owned(), json!({ "value": value, "origin": origin }))
            })
            .collect();
        let shown = json!({ "tenant": tenant.as_str(), "settings": settings });
        return context.printer.json(&shown);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
    for (name, value, origin) in settings {
        table.row([name, &value, origin.name()]);
    }
    context.printer.line(&table.render())
}

impl From<InvalidSetting> for Error {
    fn from(error: InvalidSetting) -> Self {
        let made = Self::new(Kind::Usage, error.to_string());
        match error.hint() {
            Some(hint) => made.with_hint(hint),
            None => made,
        }
    }
}
