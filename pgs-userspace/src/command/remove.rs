//! `pgs remove`.

use std::io;
use std::io::BufRead;
use std::io::IsTerminal;

use serde_json::json;

use crate::cli::tenant::RemoveArguments;
use crate::command::Context;
use crate::command::lock;
use crate::command::not_found;
use crate::command::reconcile;
use crate::container::engine::Engine;
use crate::error::Error;
use crate::error::Kind;
use crate::tenant::id::TenantId;
use crate::tenant::record::VolumeFate;
use crate::tenant::registry::Registry;

/// Removes a tenant, or what is left of one.
pub(super) async fn run(context: &Context, arguments: RemoveArguments) -> Result<(), Error> {
    let tenant = TenantId::parse(&arguments.tenant)?;
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    let engine = Engine::connect(&context.directories).await?;
    check_there(&registry, &engine, &tenant).await?;
    if !arguments.yes {
        let kept = if arguments.keep_data {
            ", but keep its data"
        } else {
            " with all its data"
        };
        confirm(context, &format!("Remove tenant `{tenant}`{kept}?")).await?;
    }
    let lock = lock(context, &tenant).await?;
    // Somebody may have removed it while the question stood.
    check_there(&registry, &engine, &tenant).await?;
    let fate = if arguments.keep_data {
        VolumeFate::Keep
    } else {
        VolumeFate::Delete
    };
    registry.begin_remove(&tenant, fate)?;
    let step = context.printer.step(&format!("removing tenant `{tenant}`"));
    if fate == VolumeFate::Keep {
        stop_well(&engine, &tenant).await?;
    }
    reconcile::erase(context, &registry, &engine, &tenant, fate, lock).await?;
    drop(step);
    if arguments.format.json {
        return context.printer.json(&json!({
            "tenant": tenant.as_str(),
            "state": "removed",
            "data_kept": arguments.keep_data,
        }));
    }
    context
        .printer
        .note(&format!("tenant `{tenant}` is removed"));
    if fate == VolumeFate::Keep {
        context.printer.hint(&format!(
            "`pgs create {tenant} --adopt-data` takes its data again"
        ));
    }
    Ok(())
}

/// A checkpoint now spares the next server the recovery.
async fn stop_well(engine: &Engine, tenant: &TenantId) -> Result<(), Error> {
    use crate::container::error::ContainerError;
    match engine.stop(tenant).await {
        Ok(()) | Err(ContainerError::Missing { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn check_there(registry: &Registry, engine: &Engine, tenant: &TenantId) -> Result<(), Error> {
    let is_there = registry.find(tenant)?.is_some()
        || engine.inspect(tenant).await?.is_some()
        || engine.has_volume(tenant).await?;
    if is_there {
        Ok(())
    } else {
        Err(not_found(tenant))
    }
}

async fn confirm(context: &Context, question: &str) -> Result<(), Error> {
    if !io::stdin().is_terminal() {
        let message = "this needs a yes, and there is no terminal to ask on";
        return Err(Error::new(Kind::Declined, message).with_hint("say it with `--yes`"));
    }
    context.printer.note(&format!("{question} [y/N]"));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.map_err(io::Error::other).flatten();
    let answer = answer
        .map_err(|error| Error::new(Kind::Declined, format!("cannot read the answer: {error}")))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::new(Kind::Declined, "nothing was removed")),
    }
}
