//! `pgs enable` and `pgs disable`.

use serde_json::json;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::admin::client;
use crate::admin::client::AdminError;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::cli::tenant::DisableArguments;
use crate::cli::tenant::OneArgument;
use crate::command::Context;
use crate::command::ready_tenant;
use crate::command::reconcile;
use crate::config::limits::END_BACKENDS_DEADLINE;
use crate::config::limits::LAST_WORDS_GRACE;
use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::error::Error;
use crate::error::Kind;
use crate::tenant::id::TenantId;
use crate::tenant::record::Access;
use crate::tenant::registry::Registry;

/// Lets a tenant's clients in, from the next startup packet on.
pub(super) async fn enable(context: &Context, arguments: OneArgument) -> Result<(), Error> {
    let tenant = change(context, &arguments.tenant, Access::Enabled).await?;
    if arguments.format.json {
        let changed = json!({ "tenant": tenant.as_str(), "access": Access::Enabled });
        return context.printer.json(&changed);
    }
    context
        .printer
        .note(&format!("clients of tenant `{tenant}` are let in"));
    Ok(())
}

/// Shuts a tenant's clients out, from the next startup packet on, and ends their sessions.
pub(super) async fn disable(context: &Context, arguments: DisableArguments) -> Result<(), Error> {
    let tenant = change(context, &arguments.tenant, Access::Disabled).await?;
    let json = arguments.format.json;
    if !json {
        context
            .printer
            .note(&format!("clients of tenant `{tenant}` are shut out"));
    }
    let ended = if arguments.keep_sessions {
        None
    } else {
        end_sessions(context, &tenant).await?
    };
    if json {
        return context.printer.json(&json!({
            "tenant": tenant.as_str(),
            "access": Access::Disabled,
            "sessions_ended": ended.unwrap_or(0),
        }));
    }
    if let Some(sessions) = ended {
        context
            .printer
            .note(&format!("{sessions} live sessions were ended"));
    }
    Ok(())
}

/// Ends the sessions of a tenant whose clients are shut out; how many, where a router runs.
async fn end_sessions(context: &Context, tenant: &TenantId) -> Result<Option<usize>, Error> {
    // After the registry: a client that comes back at once is refused. The server ends its sessions
    // first, since it alone can tell its clients why, between two messages; then the router ends
    // what is left, whether or not the server could be reached.
    let told = end_backends(context, tenant).await;
    if let Err(error) = &told {
        context.printer.warning(&format!(
            "the server could not tell its clients why: {error}"
        ));
    }
    let request = Request::Terminate {
        tenant: tenant.to_string(),
    };
    match client::ask(&context.directories.admin_socket(), &request).await {
        Ok(Response::Terminated { sessions }) => Ok(Some(told.unwrap_or(0).max(sessions))),
        // Nobody has sessions then.
        Ok(_) | Err(AdminError::NotRunning { .. }) => Ok(None),
        Err(error) => {
            let warning = "new clients are shut out, but live sessions could not be ended";
            context.printer.warning(warning);
            Err(error.into())
        }
    }
}

/// Lets the server end its sessions; how many. A server that does not run has none.
async fn end_backends(context: &Context, tenant: &TenantId) -> Result<usize, Error> {
    let engine = Engine::connect(&context.directories).await?;
    let ended = match timeout(END_BACKENDS_DEADLINE, engine.end_sessions(tenant)).await {
        Ok(Err(ContainerError::NotRunning { .. } | ContainerError::Missing { .. })) => Ok(0),
        Ok(ended) => Ok(ended?),
        Err(_) => Err(Error::new(Kind::Unhealthy, "it did not answer in time")),
    };
    if matches!(ended, Ok(1..)) {
        // Their last words are on the way.
        sleep(LAST_WORDS_GRACE).await;
    }
    ended
}

async fn change(context: &Context, tenant: &str, access: Access) -> Result<TenantId, Error> {
    let tenant = TenantId::parse(tenant)?;
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    if !registry.change_access(&tenant, access)? {
        // Says whether there is none, or another command is at work on it.
        ready_tenant(&registry, &tenant)?;
    }
    Ok(tenant)
}
