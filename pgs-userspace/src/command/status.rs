//! `pgs status`.

use serde_json::Value;
use serde_json::json;

use crate::admin::client;
use crate::admin::client::AdminError;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::admin::request::RouterStatus;
use crate::cli::tenant::StatusArguments;
use crate::command::Context;
use crate::command::canaries;
use crate::command::inventory;
use crate::command::inventory::Entry;
use crate::command::list::cores;
use crate::command::not_found;
use crate::command::reconcile;
use crate::container::lifecycle::Inspection;
use crate::error::Error;
use crate::keeper::inquiry::KeeperReport;
use crate::keeper::inquiry::inquire;
use crate::tenant::id::TenantId;
use crate::tenant::registry::Registry;

/// Shows one tenant or all of them, and the router.
pub(super) async fn run(context: &Context, arguments: StatusArguments) -> Result<(), Error> {
    let only = arguments
        .tenant
        .as_deref()
        .map(TenantId::parse)
        .transpose()?;
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    let mut inventory = inventory::take(context, &registry).await?;
    if let Some(tenant) = &only {
        inventory.entries.retain(|entry| entry.tenant == *tenant);
        if inventory.entries.is_empty() {
            return Err(not_found(tenant));
        }
    }
    let router = router(context).await?;
    let keeper = keeper(context);
    let mut tenants = Vec::new();
    for entry in inventory.entries {
        let inspection = match &inventory.engine {
            Ok(engine) => engine.inspect(&entry.tenant).await?,
            Err(_) => None,
        };
        tenants.push((entry, inspection));
    }
    if arguments.format.json {
        let tenants: Vec<_> = tenants
            .iter()
            .map(|(e, i)| tenant_json(context, e, i))
            .collect();
        context
            .printer
            .json(&json!({ "router": router, "keeper": keeper, "tenants": tenants }))?;
    } else {
        show_router(context, router.as_ref(), keeper.as_ref())?;
        for (entry, inspection) in &tenants {
            show_tenant(context, entry, inspection.as_ref())?;
        }
    }
    inventory.engine.map(drop).map_err(Error::from)
}

/// The router's own account; none where it does not run.
pub(super) async fn router(context: &Context) -> Result<Option<RouterStatus>, Error> {
    match client::ask(&context.directories.admin_socket(), &Request::Status).await {
        Ok(Response::Status(status)) => Ok(Some(*status)),
        Ok(_) | Err(AdminError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a keeper holds, if there is one. One that does not answer holds nothing that counts here.
fn keeper(context: &Context) -> Option<KeeperReport> {
    inquire(context.directories.run()).unwrap_or_default()
}

fn tenant_json(context: &Context, entry: &Entry, inspection: &Option<Inspection>) -> Value {
    json!({
        "tenant": entry,
        "socket_directory": context.directories.socket_directory(&entry.tenant),
        "started_at": inspection.as_ref().and_then(|found| found.started_at.as_deref()),
        "restarts": inspection.as_ref().map(|found| found.restart_count),
        "exit_code": inspection.as_ref().map(|found| found.exit_code),
        "health_output": inspection.as_ref().and_then(|found| found.health_output.as_deref()),
        "hint": entry.hint(),
    })
}

fn show_router(
    context: &Context,
    router: Option<&RouterStatus>,
    keeper: Option<&KeeperReport>,
) -> Result<(), Error> {
    let printer = context.printer;
    let Some(router) = router else {
        printer.line("router    not running (`pgs serve` starts it)")?;
        let Some(KeeperReport { keeper, slots, .. }) = keeper else {
            return Ok(());
        };
        return printer.line(&format!(
            "kept      {slots} sessions, by process {keeper}, for the next `pgs serve`"
        ));
    };
    printer.line(&format!("router    running, process {}", router.pid))?;
    if let Some(held) = &router.privileges {
        printer.line(&format!("runs as   {held}"))?;
    }
    printer.line(&format!("listens   {}", router.listen.join(", ")))?;
    let configuration = match &router.configuration_file {
        Some(file) => file.clone(),
        None => "no file (`pgs config show` shows what holds)".to_owned(),
    };
    printer.line(&format!("config    {configuration}"))?;
    if let Some(error) = &router.configuration.error {
        let error = error.replace('\n', "\n          ");
        printer.line(&format!("          not read again: {error}"))?;
    }
    for change in &router.configuration.needs_restart {
        printer.line(&format!("          waits for a restart: {change}"))?;
    }
    for caution in &router.configuration.cautions {
        printer.line(&format!("          look again: {caution}"))?;
    }
    show_path(context, router)?;
    if let Some(survival) = &router.survival {
        let process = survival.process_id.map(|id| format!(", process {id}"));
        let reason = survival.reason.as_deref().map(|why| format!(" ({why})"));
        let (process, reason) = (process.unwrap_or_default(), reason.unwrap_or_default());
        printer.line(&format!("kept by   {}{process}{reason}", survival.kept_by))?;
        if let Some(object) = &survival.older_ebpf_object {
            printer.line(&format!(
                "          sessions use the eBPF object {object} of an older router, until `pgs \
                 serve` starts while none is in the kernel"
            ))?;
        }
    }
    let (all, kernel) = (router.sessions, router.sessions_kernel);
    printer.line(&format!(
        "sessions  {all}, {kernel} of them through the kernel"
    ))
}

/// How new sessions travel, and what that was decided by.
fn show_path(context: &Context, router: &RouterStatus) -> Result<(), Error> {
    let printer = context.printer;
    let why = router.path_reason.as_deref();
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    printer.line(&format!("path      {}{why}", router.path))?;
    if let Some(why) = &router.path_one_way {
        printer.line(&format!("          from backends to clients only: {why}"))?;
    }
    match canaries::summary(&router.canaries, router.canaries_milliseconds) {
        Some(found) => printer.line(&format!("canaries  {found}")),
        None => Ok(()),
    }
}

fn show_tenant(
    context: &Context,
    entry: &Entry,
    inspection: Option<&Inspection>,
) -> Result<(), Error> {
    let printer = context.printer;
    printer.line("")?;
    printer.line(&format!("tenant    {}", entry.tenant))?;
    printer.line(&format!("state     {}", entry.state()))?;
    printer.line(&format!("access    {}", entry.access.as_str()))?;
    if let Some(blueprint) = &entry.blueprint {
        let (memory, cpus) = (blueprint.memory_bytes >> 20, cores(blueprint.cpu_millis));
        let network = blueprint.network.as_deref().unwrap_or("none");
        printer.line(&format!("image     {}", blueprint.image))?;
        printer.line(&format!("limits    {memory} MiB memory, {cpus} processors"))?;
        printer.line(&format!("network   {network}"))?;
    }
    let socket = context.directories.socket_directory(&entry.tenant);
    printer.line(&format!("socket    {}", socket.display()))?;
    if let Some(inspection) = inspection {
        if let Some(started_at) = &inspection.started_at {
            printer.line(&format!("started   {started_at}"))?;
        }
        if let Some(output) = &inspection.health_output {
            printer.line(&format!(
                "health    {}",
                crate::output::sanitised_line(output.trim())
            ))?;
        }
    }
    if let Some(hint) = entry.hint() {
        printer.hint(&hint);
    }
    Ok(())
}
