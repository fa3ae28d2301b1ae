//! Finishes or undoes what a crashed command has left unfinished.

use crate::command::Context;
use crate::container::engine::Engine;
use crate::container::socket_directory;
use crate::error::Error;
use crate::tenant::id::TenantId;
use crate::tenant::lock::OperationLock;
use crate::tenant::record::Lifecycle;
use crate::tenant::record::VolumeFate;
use crate::tenant::registry::Registry;

/// Looks for tenants that are neither ready nor being worked on, and clears them away: a creation
/// is undone, a removal finished. What cannot be cleared now stays for the next command.
///
/// # Errors
/// The registry cannot be read.
pub(super) async fn run(context: &Context, registry: &Registry) -> Result<(), Error> {
    for tenant in registry.all()? {
        if tenant.lifecycle == Lifecycle::Ready {
            continue;
        }
        if let Err(error) = clear_away(context, registry, &tenant.id).await {
            let id = &tenant.id;
            context
                .printer
                .warning(&format!("tenant `{id}` is still half there: {error}"));
        }
    }
    Ok(())
}

async fn clear_away(
    context: &Context,
    registry: &Registry,
    tenant: &TenantId,
) -> Result<(), Error> {
    // Held: whoever works on it is alive.
    let Some(lock) = OperationLock::try_acquire(&context.directories, tenant)? else {
        return Ok(());
    };
    // Once more, now that nobody else can change it.
    let Some(found) = registry.find(tenant)? else {
        return Ok(lock.retire()?);
    };
    let doing = match found.lifecycle {
        Lifecycle::Ready => return Ok(()),
        Lifecycle::Creating => "undoing the creation",
        Lifecycle::Removing => "finishing the removal",
    };
    let text = format!("{doing} of tenant `{tenant}`, which an earlier command left unfinished");
    context.printer.note(&text);
    let engine = Engine::connect(&context.directories).await?;
    if found.lifecycle == Lifecycle::Creating {
        engine.settle(tenant, &found.blueprint.image).await?;
    }
    erase(context, registry, &engine, tenant, found.volume_fate, lock).await
}

/// Takes away all that there is of a tenant, the registry's entry last: until then another command
/// can do it again from the start.
///
/// # Errors
/// Docker or the registry failed; what is left is found again by the next command.
pub(super) async fn erase(
    context: &Context,
    registry: &Registry,
    engine: &Engine,
    tenant: &TenantId,
    fate: VolumeFate,
    lock: OperationLock,
) -> Result<(), Error> {
    engine.remove_container(tenant).await?;
    if fate == VolumeFate::Delete {
        engine.remove_volume(tenant).await?;
    }
    socket_directory::remove(&context.directories, tenant).await?;
    registry.forget(tenant)?;
    Ok(lock.retire()?)
}
