//! `pgs create`.

use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::cli::tenant::CreateArguments;
use crate::command::Context;
use crate::command::busy;
use crate::command::interruption::Interruption;
use crate::command::password;
use crate::command::password::Chosen;
use crate::command::reconcile;
use crate::command::unless_known;
use crate::command::url;
use crate::config::limits::INIT_FILE_BYTES_MAX;
use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::server::Privileges;
use crate::container::server_tls::TlsEnd;
use crate::container::socket_directory;
use crate::error::Error;
use crate::error::Kind;
use crate::tenant::id::TenantId;
use crate::tenant::lock::OperationLock;
use crate::tenant::record::Access;
use crate::tenant::record::Blueprint;
use crate::tenant::record::VolumeFate;
use crate::tenant::registry::Registry;

/// Everything that is known before the first thing is made.
struct Plan {
    tenant: TenantId,
    blueprint: Blueprint,
    privileges: Privileges,
    verifier: String,
    init: Vec<PathBuf>,
    fate: VolumeFate,
    access: Access,
}

/// Makes a tenant, or leaves nothing of it.
pub(super) async fn run(context: &Context, arguments: CreateArguments) -> Result<(), Error> {
    let mut interruption = Interruption::listen()?;
    let tenant = TenantId::parse(&arguments.tenant)?;
    socket_directory::check_length(&context.directories, &tenant)?;
    arguments
        .init
        .iter()
        .try_for_each(|path| check_init_file(path))?;
    let choosing = password::choose(&arguments.password);
    let chosen = interruption.ends(choosing).await?;
    let json = arguments.format.json;
    let registry = Registry::open(&context.directories)?;
    let preparing = async {
        let engine = Engine::connect(&context.directories).await?;
        reconcile::run(context, &registry).await?;
        let lock = OperationLock::try_acquire(&context.directories, &tenant)?;
        let lock = lock.ok_or_else(|| busy(&tenant))?;
        let planning = async {
            check_new(&registry, &engine, &tenant).await?;
            let verifier = chosen.password.scram_verifier();
            plan(context, &engine, tenant.clone(), verifier, arguments).await
        };
        match planning.await {
            Ok(plan) => Ok((engine, plan, lock)),
            Err(error) => {
                unless_known(&registry, &tenant, lock)?;
                Err(error)
            }
        }
    };
    let (engine, plan, lock) = interruption.ends(preparing).await?;
    make_or_undo(context, &registry, &engine, &plan, &mut interruption, lock).await?;
    announce(context, &plan, &chosen, json).await
}

async fn plan(
    context: &Context,
    engine: &Engine,
    tenant: TenantId,
    verifier: String,
    arguments: CreateArguments,
) -> Result<Plan, Error> {
    let fate = check_data(engine, &tenant, arguments.adopt_data).await?;
    let report = engine.report().await?;
    report.check_free_space()?;
    let blueprint = Blueprint {
        image: arguments.image,
        memory_bytes: arguments.memory,
        cpu_millis: arguments
            .cpus
            .unwrap_or_else(|| report.cpu_millis_default()),
        network: arguments.network,
    };
    if let Some(network) = &blueprint.network {
        engine.check_network(network).await?;
    }
    pull_if_absent(context, engine, &blueprint.image).await?;
    engine.check_contract(&blueprint.image).await?;
    Ok(Plan {
        tenant,
        blueprint,
        privileges: Privileges {
            superuser: arguments.superuser,
            replication: arguments.replication,
        },
        verifier,
        init: arguments.init,
        fate,
        access: if arguments.enable {
            Access::Enabled
        } else {
            Access::Disabled
        },
    })
}

async fn make_or_undo(
    context: &Context,
    registry: &Registry,
    engine: &Engine,
    plan: &Plan,
    interruption: &mut Interruption,
    lock: OperationLock,
) -> Result<(), Error> {
    let tenant = &plan.tenant;
    if !registry.begin_create(tenant, &plan.blueprint, plan.fate)? {
        return Err(exists(tenant));
    }
    let made = interruption.ends(make(context, engine, plan)).await;
    let Err(error) = made else {
        return Ok(registry.finish_create(tenant, plan.access)?);
    };
    context
        .printer
        .note(&format!("undoing the creation of tenant `{tenant}`"));
    if let Err(left) = undo(context, registry, engine, plan, lock).await {
        let warning = format!("could not undo all of it, the next command will try: {left}");
        context.printer.warning(&warning);
    }
    Err(error)
}

async fn undo(
    context: &Context,
    registry: &Registry,
    engine: &Engine,
    plan: &Plan,
    lock: OperationLock,
) -> Result<(), Error> {
    let tenant = &plan.tenant;
    engine.settle(tenant, &plan.blueprint.image).await?;
    reconcile::erase(context, registry, engine, tenant, plan.fate, lock).await
}

async fn make(context: &Context, engine: &Engine, plan: &Plan) -> Result<(), Error> {
    let tenant = &plan.tenant;
    let step = context
        .printer
        .step(&format!("making the container of tenant `{tenant}`"));
    if plan.fate == VolumeFate::Delete {
        engine.create_volume(tenant).await?;
    }
    engine
        .create_container(tenant, &plan.blueprint, TlsEnd::Router)
        .await?;
    engine.start(tenant).await?;
    step.becomes(context.printer, "waiting for its server to be ready");
    engine.wait_ready(tenant).await?;
    step.becomes(context.printer, "making its role and database");
    engine
        .furnish(tenant, plan.privileges, &plan.verifier)
        .await?;
    for path in &plan.init {
        step.becomes(context.printer, &format!("running `{}`", path.display()));
        run_init_file(engine, tenant, path).await?;
    }
    Ok(())
}

async fn run_init_file(engine: &Engine, tenant: &TenantId, path: &Path) -> Result<(), Error> {
    engine
        .run_file(tenant, path)
        .await
        .map_err(|error| match error {
            ContainerError::Execution { .. } => {
                Error::new(Kind::Sql, error.to_string()).with_hint("correct the file and try again")
            }
            other => other.into(),
        })
}

async fn pull_if_absent(context: &Context, engine: &Engine, image: &str) -> Result<(), Error> {
    if engine.has_image(image).await? {
        return Ok(());
    }
    let mut download = context.printer.download(image);
    Ok(engine
        .pull_image(image, |progress| download.advance(progress))
        .await?)
}

async fn check_new(registry: &Registry, engine: &Engine, tenant: &TenantId) -> Result<(), Error> {
    if registry.find(tenant)?.is_some() {
        return Err(exists(tenant));
    }
    if engine.inspect(tenant).await?.is_some() {
        let name = engine.installation().name_of(tenant);
        let message = format!("the container `{name}` is there, but not in the registry");
        let hint = format!(
            "`pgs remove {tenant} --keep-data` removes it; `pgs create {tenant} --adopt-data` then \
             makes the tenant from its data"
        );
        return Err(Error::new(Kind::Exists, message).with_hint(hint));
    }
    Ok(())
}

fn exists(tenant: &TenantId) -> Error {
    Error::new(
        Kind::Exists,
        format!("there is a tenant `{tenant}` already"),
    )
    .with_hint(format!(
        "`pgs status {tenant}` shows it; `pgs remove {tenant}` removes it"
    ))
}

/// Data is never taken over, nor made anew, without being asked to.
async fn check_data(engine: &Engine, tenant: &TenantId, adopt: bool) -> Result<VolumeFate, Error> {
    match (engine.has_volume(tenant).await?, adopt) {
        (true, true) => Ok(VolumeFate::Keep),
        (false, false) => Ok(VolumeFate::Delete),
        (true, false) => {
            let message = format!("data of an earlier tenant `{tenant}` was kept");
            let hint = format!(
                "`pgs create {tenant} --adopt-data` takes it, `pgs remove {tenant}` deletes it"
            );
            Err(Error::new(Kind::Exists, message).with_hint(hint))
        }
        (false, true) => {
            let message = format!("no data of an earlier tenant `{tenant}` was kept");
            let hint = "leave `--adopt-data` out to begin with an empty database";
            Err(Error::new(Kind::NotFound, message).with_hint(hint))
        }
    }
}

fn check_init_file(path: &Path) -> Result<(), Error> {
    let refused = |why: String| {
        let message = format!("cannot take `{}` as `--init`: {why}", path.display());
        Error::new(Kind::Usage, message).with_hint("name a readable file of SQL")
    };
    // Before it is opened: opening a pipe waits for who writes into it.
    let metadata = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?;
    if !metadata.is_file() {
        return Err(refused("it is no regular file".to_owned()));
    }
    // Opened, not only looked at: the permission counts too.
    std::fs::File::open(path).map_err(|error| refused(error.to_string()))?;
    if metadata.len() > INIT_FILE_BYTES_MAX {
        return Err(refused(format!(
            "it is larger than {} MiB",
            INIT_FILE_BYTES_MAX >> 20
        )));
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension @ ("sh" | "gz" | "xz" | "zst" | "dump")) => {
            Err(refused(format!("`.{extension}` is no SQL text")))
        }
        _ => Ok(()),
    }
}

async fn announce(
    context: &Context,
    plan: &Plan,
    chosen: &Chosen,
    json: bool,
) -> Result<(), Error> {
    let (tenant, printer) = (&plan.tenant, context.printer);
    let url = url::of(tenant, "localhost", url::router_port(context).await);
    let shown = chosen.generated.then(|| chosen.password.reveal());
    if json {
        return printer.json(&json!({
            "tenant": tenant.as_str(),
            "access": plan.access,
            "url": url,
            "password": shown,
        }));
    }
    printer.line(&format!("tenant    {tenant}"))?;
    printer.line(&format!("url       {url}"))?;
    if let Some(password) = shown {
        printer.line(&format!("password  {password}"))?;
    }
    printer.line(&format!("access    {}", plan.access.as_str()))?;
    if shown.is_some() {
        printer.hint("keep the password now: it is not shown again");
    }
    if plan.access == Access::Disabled {
        printer.hint(&format!("`pgs enable {tenant}` lets its clients in"));
    }
    Ok(())
}
