//! `pgs start`, `pgs stop` and `pgs restart`.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use futures_util::stream;

use crate::cli::tenant::SeveralArguments;
use crate::command::Context;
use crate::command::lock;
use crate::command::ready_tenant;
use crate::command::reconcile;
use crate::config::limits::DOCKER_CALLS_IN_FLIGHT_MAX;
use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::server_tls::TlsEnd;
use crate::error::Error;
use crate::tenant::id::TenantId;
use crate::tenant::record::Lifecycle;
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
    // Before the first one is touched: a mistyped name changes nothing.
    for tenant in &tenants {
        ready_tenant(&registry, tenant)?;
    }
    if tenants.is_empty() {
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
    while let Some((tenant, outcome)) = outcomes.next().await {
        if let Err(error) = outcome {
            // The first one is reported at the end; none may be lost.
            match &first_error {
                None => first_error = Some(error),
                Some(_) => context
                    .printer
                    .warning(&format!("tenant `{tenant}`: {error}")),
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

fn all(registry: &Registry) -> Result<BTreeSet<TenantId>, Error> {
    let tenants = registry.all()?.into_iter();
    Ok(tenants
        .filter(|t| t.lifecycle == Lifecycle::Ready)
        .map(|t| t.id)
        .collect())
}

async fn one(
    context: &Context,
    registry: &Registry,
    engine: &Engine,
    tenant: &TenantId,
    act: Act,
) -> Result<(), Error> {
    let _lock = lock(context, tenant).await?;
    let found = ready_tenant(registry, tenant)?;
    let printer = context.printer;
    if matches!(act, Act::Stop | Act::Restart) {
        let _step = printer.step(&format!("stopping tenant `{tenant}`"));
        match engine.stop(tenant).await {
            Err(ContainerError::Missing { .. }) => {}
            other => other?,
        }
    }
    if matches!(act, Act::Start | Act::Restart) {
        let step = printer.step(&format!("starting tenant `{tenant}`"));
        match engine.start(tenant).await {
            Err(ContainerError::Missing { .. }) => {
                let again = format!("making the container of tenant `{tenant}` again");
                step.becomes(printer, &again);
                engine.create_container(tenant, &found.blueprint, TlsEnd::Router).await?;
                engine.start(tenant).await?;
            }
            other => other?,
        }
        engine.wait_ready(tenant).await?;
    }
    printer.note(&match act {
        Act::Start | Act::Restart => format!("tenant `{tenant}` is ready"),
        Act::Stop => format!("tenant `{tenant}` is stopped"),
    });
    Ok(())
}
