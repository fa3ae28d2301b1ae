//! `pgs psql`.

use crate::cli::tenant::PsqlArguments;
use crate::command::Context;
use crate::command::ready_tenant;
use crate::container::engine::Engine;
use crate::error::Error;
use crate::error::Kind;
use crate::tenant::id::TenantId;
use crate::tenant::registry::Registry;

/// Runs psql in the tenant's container and gives its exit code.
///
/// It logs in by `peer` as the superuser, the one role that needs no password there, and takes the
/// tenant's role from the start, unless asked to stay the superuser.
pub(super) async fn run(context: &Context, arguments: PsqlArguments) -> Result<u8, Error> {
    let tenant = TenantId::parse(&arguments.tenant)?;
    ready_tenant(&Registry::open(&context.directories)?, &tenant)?;
    let engine = Engine::connect(&context.directories).await?;
    let mut command = vec!["psql".to_owned()];
    command.extend(arguments.arguments);
    let environment = environment(&tenant, arguments.superuser);
    let code = engine.attach(&tenant, command, environment).await?;
    u8::try_from(code).map_err(|_| {
        Error::new(
            Kind::Unhealthy,
            format!("psql in the container of `{tenant}` was cut off"),
        )
        .with_hint(format!("`pgs status {tenant}` shows how the container is"))
    })
}

/// In the environment and not among the arguments, so that the user's own arguments win.
fn environment(tenant: &TenantId, superuser: bool) -> Vec<String> {
    let mut environment = vec![
        "PGHOST=/var/run/postgresql".to_owned(),
        "PGUSER=postgres".to_owned(),
        format!("PGDATABASE={tenant}"),
        "PSQL_HISTORY=/dev/null".to_owned(),
    ];
    if !superuser {
        environment.push(format!("PGOPTIONS=-c role={tenant}"));
    }
    if let Ok(terminal) = std::env::var("TERM") {
        environment.push(format!("TERM={terminal}"));
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_tenants_role_unless_asked_not_to() {
        let acme = TenantId::parse("acme").unwrap();
        let role = "PGOPTIONS=-c role=acme".to_owned();
        assert!(environment(&acme, false).contains(&role));
        assert!(!environment(&acme, true).contains(&role));
    }
}
