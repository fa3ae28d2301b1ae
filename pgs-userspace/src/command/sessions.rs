//! `pgs sessions`.

use serde_json::json;

use crate::admin::client;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::admin::request::SessionReport;
use crate::cli::tenant::SessionsArguments;
use crate::command::Context;
use crate::command::ready_tenant;
use crate::error::Error;
use crate::error::Kind;
use crate::output::table::Table;
use crate::tenant::id::TenantId;
use crate::tenant::registry::Registry;

/// Lists the router's live sessions.
pub(super) async fn run(context: &Context, arguments: SessionsArguments) -> Result<(), Error> {
    let tenant = arguments
        .tenant
        .as_deref()
        .map(TenantId::parse)
        .transpose()?;
    if let Some(tenant) = &tenant {
        ready_tenant(&Registry::open(&context.directories)?, tenant)?;
    }
    let request = Request::Sessions {
        tenant: tenant.map(|tenant| tenant.to_string()),
    };
    let response = client::ask(&context.directories.admin_socket(), &request).await?;
    let Response::Sessions { sessions } = response else {
        let message = "`pgs serve` answered something else than was asked";
        return Err(Error::new(Kind::Internal, message));
    };
    if arguments.format.json {
        return context.printer.json(&json!({ "sessions": sessions }));
    }
    let table = table(&sessions);
    if table.is_empty() {
        context.printer.note("there are no sessions");
        return Ok(());
    }
    context.printer.line(&table.render())
}

fn table(sessions: &[SessionReport]) -> Table {
    let mut table = Table::new(&[
        "ID", "TENANT", "USER", "DATABASE", "CLIENT", "PATH", "AGE", "SENT", "RECEIVED", "KERNEL",
    ]);
    for session in sessions {
        let path = match &session.path_reason {
            Some(reason) => format!("{} ({reason})", session.path),
            None => session.path.clone(),
        };
        table.row([
            &session.id.to_string(),
            &session.tenant,
            session.user.as_deref().unwrap_or("-"),
            session.database.as_deref().unwrap_or("-"),
            &session.client,
            &path,
            &format!("{} s", session.age_seconds),
            &session.bytes_to_client.to_string(),
            &session.bytes_to_backend.to_string(),
            &session.bytes_in_kernel.to_string(),
        ]);
    }
    table
}
