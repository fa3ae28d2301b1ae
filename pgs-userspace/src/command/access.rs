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
    let registry = Registry::open(&context.directories)?;
    let tenant = change(context, &registry, &arguments.tenant, Access::Enabled).await?;
    if arguments.format.json {
        let changed = json!({ "tenant": tenant.as_str(), "access": Access::Enabled });
        context.printer.json(&changed)?;
    } else {
        context
            .printer
            .note(&format!("clients of tenant `{tenant}` are let in"));
    }
    reconcile::run(context, &registry).await
}

/// Shuts a tenant's clients out, from the next startup packet on, and ends their sessions.
pub(super) async fn disable(context: &Context, arguments: DisableArguments) -> Result<(), Error> {
    let registry = Registry::open(&context.directories)?;
    let tenant = change(context, &registry, &arguments.tenant, Access::Disabled).await?;
    let json = arguments.format.json;
    if !json {
        context
            .printer
            .note(&format!("clients of tenant `{tenant}` are shut out"));
    }
    let ended = if arguments.keep_sessions {
        None
    } else {
        // After the registry: a client that comes back at once is refused.
        end_sessions(context, &tenant).await?
    };
    if json {
        context.printer.json(&json!({
            "tenant": tenant.as_str(),
            "access": Access::Disabled,
            "sessions_ended": ended.unwrap_or(0),
        }))?;
    } else if let Some(sessions) = ended {
        context
            .printer
            .note(&format!("{sessions} live sessions were ended"));
    }
    reconcile::run(context, &registry).await
}

/// Ends the sessions of a tenant whose clients are shut out; how many, where that is known. The
/// server ends its sessions first, since it alone can tell its clients why, between two messages;
/// then the router ends what is left, whether or not the server could be reached. Without a router
/// sessions may go on all the same, and then the server alone can end them.
async fn end_sessions(context: &Context, tenant: &TenantId) -> Result<Option<usize>, Error> {
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
        Ok(_) | Err(AdminError::NotRunning { .. }) => match told {
            Ok(0) => Ok(None),
            Ok(sessions) => Ok(Some(sessions)),
            Err(error) => Err(may_go_on(tenant, &error)),
        },
        Err(error) => {
            let warning = "new clients are shut out, but live sessions could not be ended";
            context.printer.warning(warning);
            Err(error.into())
        }
    }
}

/// Neither server nor router has ended anything.
fn may_go_on(tenant: &TenantId, error: &Error) -> Error {
    let text = format!(
        "new clients of tenant `{tenant}` are shut out, but sessions that have outlived the router \
         go on: its server did not end them ({error}), and no router runs"
    );
    Error::new(Kind::Unhealthy, text).with_hint(format!(
        "start `pgs serve`, then `pgs disable {tenant}` again"
    ))
}

/// Lets the server end its sessions; how many. A server that does not run has none. A tenant can
/// stop his server, and Docker can hang: neither keeps his sessions.
async fn end_backends(context: &Context, tenant: &TenantId) -> Result<usize, Error> {
    let ending = async {
        let engine = Engine::connect(&context.directories).await?;
        engine.end_sessions(tenant).await
    };
    let ended = match timeout(END_BACKENDS_DEADLINE, ending).await {
        Ok(Err(ContainerError::NotRunning { .. } | ContainerError::Missing { .. })) => Ok(0),
        Ok(ended) => Ok(ended?),
        Err(_) => {
            let within = END_BACKENDS_DEADLINE.as_millis();
            let text = format!("Docker or the server did not answer within {within} ms");
            Err(Error::new(Kind::Unhealthy, text))
        }
    };
    if matches!(ended, Ok(1..)) {
        // Their last words are on the way.
        sleep(LAST_WORDS_GRACE).await;
    }
    ended
}

/// Changes the registry before anything else: what an earlier command has left unfinished is
/// Docker's to finish, which may take long.
async fn change(
    context: &Context,
    registry: &Registry,
    tenant: &str,
    access: Access,
) -> Result<TenantId, Error> {
    let tenant = TenantId::parse(tenant)?;
    if !registry.change_access(&tenant, access)? {
        reconcile::run(context, registry).await?;
        // Says whether there is none, or another command is at work on it.
        ready_tenant(registry, &tenant)?;
        // It has become ready meanwhile.
        registry.change_access(&tenant, access)?;
    }
    Ok(tenant)
}
