//! `pgs start`, `pgs stop` and `pgs restart`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::Value;
use serde_json::json;

use crate::cli::tenant::SeveralArguments;
use crate::command::Context;
use crate::command::lock_ready;
use crate::command::ready_tenant;
use crate::command::reconcile;
use crate::command::server_tls;
use crate::config::limits::DOCKER_CALLS_IN_FLIGHT_MAX;
use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::server_tls::TlsEnd;
use crate::error::Error;
use crate::tenant::id::TenantId;
use crate::tenant::record::Lifecycle;
use crate::tenant::record::Tenant;
use crate::tenant::registry::Registry;

/// What is done to the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Start, and wait until the server answers.
    Start,
    /// Stop.
    Stop,
    /// One after the other.
    Restart,
}

impl Act {
    /// What a tenant is afterwards, for a program.
    fn state(self) -> &'static str {
        match self {
            Self::Start | Self::Restart => "ready",
            Self::Stop => "stopped",
        }
    }
}

/// Does it to the named tenants, or to all, several at once.
pub(super) async fn run(
    context: &Context,
    arguments: SeveralArguments,
    act: Act,
) -> Result<(), Error> {
    let named = arguments.tenants.iter().chain(&arguments.more);
    let named: BTreeSet<_> = named
        .map(|text| TenantId::parse(text))
        .collect::<Result<_, _>>()?;
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    let tenants = if named.is_empty() {
        all(&registry)?
    } else {
        named
    };
    // Before the first one is touched: a mistyped name, or a configuration file that cannot be
    // used, changes nothing.
    for tenant in &tenants {
        ready_tenant(&registry, tenant)?;
        to_start(context, &registry, tenant, act)?;
    }
    let json = arguments.format.json;
    if tenants.is_empty() {
        if json {
            return print(context, &BTreeMap::new(), act);
        }
        context.printer.note("there are no tenants");
        return Ok(());
    }
    let engine = Engine::connect(&context.directories).await?;
    let (registry, engine) = (&registry, &engine);
    let mut outcomes = stream::iter(tenants)
        .map(|tenant| async move {
            let done = one(context, registry, engine, &tenant, act).await;
            (tenant, done)
        })
        .buffer_unordered(DOCKER_CALLS_IN_FLIGHT_MAX);
    let mut first_error = None;
    let mut done = BTreeMap::new();
    while let Some((tenant, outcome)) = outcomes.next().await {
        let error = outcome.err();
        // The first one is reported at the end; none may be lost. With JSON they are all in it.
        if let (Some(_), Some(error), false) = (&first_error, &error, json) {
            let warning = format!("tenant `{tenant}`: {error}");
            context.printer.warning(&warning);
        }
        first_error = first_error.or_else(|| error.clone());
        done.insert(tenant, error);
    }
    if json {
        print(context, &done, act)?;
    }
    first_error.map_or(Ok(()), Err)
}

/// What became of each tenant, as JSON.
fn print(
    context: &Context,
    done: &BTreeMap<TenantId, Option<Error>>,
    act: Act,
) -> Result<(), Error> {
    let tenants: Vec<Value> = done
        .iter()
        .map(|(tenant, error)| match error {
            None => json!({ "tenant": tenant.as_str(), "state": act.state() }),
            Some(error) => {
                let error = &error.to_json()["error"];
                json!({ "tenant": tenant.as_str(), "error": error })
            }
        })
        .collect();
    context.printer.json(&json!({ "tenants": tenants }))
}

fn all(registry: &Registry) -> Result<BTreeSet<TenantId>, Error> {
    let tenants = registry.all()?.into_iter();
    Ok(tenants
        .filter(|t| t.lifecycle == Lifecycle::Ready)
        .map(|t| t.id)
        .collect())
}

/// How the server has to be started, if it has to.
fn to_start(
    context: &Context,
    registry: &Registry,
    tenant: &TenantId,
    act: Act,
) -> Result<Option<TlsEnd>, Error> {
    match act {
        Act::Stop => Ok(None),
        Act::Start | Act::Restart => {
            let settings = server_tls::settings(context, registry, tenant)?;
            Ok(Some(server_tls::wanted(&settings)))
        }
    }
}

async fn one(
    context: &Context,
    registry: &Registry,
    engine: &Engine,
    tenant: &TenantId,
    act: Act,
) -> Result<(), Error> {
    let (_lock, found) = lock_ready(context, registry, tenant).await?;
    let printer = context.printer;
    // What is stopped must not stay so because it is not known how to start it.
    let wanted = to_start(context, registry, tenant, act)?;
    if matches!(act, Act::Stop | Act::Restart) {
        let _step = printer.step(&format!("stopping tenant `{tenant}`"));
        match engine.stop(tenant).await {
            Err(ContainerError::Missing { .. }) => {}
            other => other?,
        }
    }
    if let Some(wanted) = wanted {
        start(context, engine, &found, wanted).await?;
    }
    printer.note(&match act {
        Act::Start | Act::Restart => format!("tenant `{tenant}` is ready"),
        Act::Stop => format!("tenant `{tenant}` is stopped"),
    });
    Ok(())
}

/// Starts the server, and makes its container again where it would not end TLS where it should.
async fn start(
    context: &Context,
    engine: &Engine,
    found: &Tenant,
    wanted: TlsEnd,
) -> Result<(), Error> {
    let (tenant, printer) = (&found.id, context.printer);
    let step = printer.step(&format!("starting tenant `{tenant}`"));
    let inspection = engine.inspect(tenant).await?;
    let was_alive = inspection.as_ref().is_some_and(|found| found.is_alive);
    let is_outdated = inspection.as_ref().is_some_and(|found| found.is_outdated);
    let made_for = inspection.map(|found| found.tls);
    match made_for {
        // It may be the server's certificate that keeps it from starting.
        Some(TlsEnd::Server) if wanted == TlsEnd::Router && !was_alive => {
            step.becomes(printer, &remaking(tenant));
            return remake(engine, found, TlsEnd::Router).await;
        }
        Some(_) => engine.start(tenant).await?,
        None => {
            step.becomes(printer, &remaking(tenant));
            engine
                .create_container(tenant, &found.blueprint, TlsEnd::Router)
                .await?;
            engine.start(tenant).await?;
        }
    }
    engine.wait_ready(tenant).await?;
    if made_for.unwrap_or(TlsEnd::Router) == wanted && (was_alive || !is_outdated) {
        // A command that was killed may have made the container and no more.
        return match wanted {
            TlsEnd::Server => Ok(engine.agree_on_tls(tenant, wanted).await?),
            TlsEnd::Router => Ok(()),
        };
    }
    if was_alive {
        printer.warning(&format!(
            "tenant `{tenant}` runs, and listens as it was set before: `pgs restart {tenant}`"
        ));
        return Ok(());
    }
    // Only a server that runs can say whether it has a certificate.
    if wanted == TlsEnd::Server && !engine.has_certificate(tenant).await? {
        printer.warning(&format!(
            "the server of tenant `{tenant}` has no certificate: clients cannot connect before \
             `pgs tls set --tenant {tenant}` and `pgs restart {tenant}`"
        ));
        return Ok(());
    }
    step.becomes(printer, &remaking(tenant));
    engine.stop(tenant).await?;
    remake(engine, found, wanted).await
}

fn remaking(tenant: &TenantId) -> String {
    format!("making the container of tenant `{tenant}` again")
}

/// Makes the container of a stopped server again, around the same data.
async fn remake(engine: &Engine, found: &Tenant, wanted: TlsEnd) -> Result<(), Error> {
    let tenant = &found.id;
    engine.remove_container(tenant).await?;
    engine
        .create_container(tenant, &found.blueprint, wanted)
        .await?;
    engine.start(tenant).await?;
    engine.wait_ready(tenant).await?;
    Ok(engine.agree_on_tls(tenant, wanted).await?)
}
