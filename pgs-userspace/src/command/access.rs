//! `pgs enable` and `pgs disable`.

use crate::admin::client;
use crate::admin::client::AdminError;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::cli::tenant::DisableArguments;
use crate::cli::tenant::OneArgument;
use crate::command::Context;
use crate::command::ready_tenant;
use crate::command::reconcile;
use crate::error::Error;
use crate::tenant::id::TenantId;
use crate::tenant::record::Access;
use crate::tenant::registry::Registry;

/// Lets a tenant's clients in, from the next startup packet on.
pub(super) async fn enable(context: &Context, arguments: OneArgument) -> Result<(), Error> {
    let tenant = change(context, &arguments.tenant, Access::Enabled).await?;
    context
        .printer
        .note(&format!("clients of tenant `{tenant}` are let in"));
    Ok(())
}

/// Shuts a tenant's clients out, from the next startup packet on, and ends their sessions.
pub(super) async fn disable(context: &Context, arguments: DisableArguments) -> Result<(), Error> {
    let tenant = change(context, &arguments.tenant, Access::Disabled).await?;
    context
        .printer
        .note(&format!("clients of tenant `{tenant}` are shut out"));
    if arguments.keep_sessions {
        return Ok(());
    }
    // After the registry: a client that comes back at once is refused.
    let request = Request::Terminate {
        tenant: tenant.to_string(),
    };
    match client::ask(&context.directories.admin_socket(), &request).await {
        Ok(Response::Terminated { sessions }) => {
            context
                .printer
                .note(&format!("{sessions} live sessions were ended"));
            Ok(())
        }
        // Nobody has sessions then.
        Ok(_) | Err(AdminError::NotRunning { .. }) => Ok(()),
        Err(error) => {
            let warning = "new clients are shut out, but live sessions could not be ended";
            context.printer.warning(warning);
            Err(error.into())
        }
    }
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
