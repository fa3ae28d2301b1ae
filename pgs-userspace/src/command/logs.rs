//! `pgs logs`.

use futures_util::StreamExt;

use crate::cli::tenant::LogsArguments;
use crate::command::Context;
use crate::command::ready_tenant;
use crate::container::engine::Engine;
use crate::error::Error;
use crate::output::sanitised;
use crate::tenant::id::TenantId;
use crate::tenant::registry::Registry;

/// Prints what a tenant's server has logged, and with `-f` what it goes on to log.
pub(super) async fn run(context: &Context, arguments: LogsArguments) -> Result<(), Error> {
    let tenant = TenantId::parse(&arguments.tenant)?;
    ready_tenant(&Registry::open(&context.directories)?, &tenant)?;
    let engine = Engine::connect(&context.directories).await?;
    let mut pieces = Box::pin(engine.logs(&tenant, arguments.tail, arguments.follow));
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        // Clients' words are in it: a terminal must not act on them, a file gets them unchanged.
        let is_read = if context.printer.is_terminal_output() {
            let text = sanitised(&String::from_utf8_lossy(&piece));
            context.printer.bytes_while_read(text.as_bytes())?
        } else {
            context.printer.bytes_while_read(&piece)?
        };
        if !is_read {
            break;
        }
    }
    Ok(())
}
