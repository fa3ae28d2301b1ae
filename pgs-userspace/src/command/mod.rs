//! The verbs, one file each.

use std::path::PathBuf;

use tokio::time::Instant;
use tokio::time::sleep;

use crate::cli::Cli;
use crate::cli::Verb;
use crate::command::interruption::Interruption;
use crate::config::directories::Directories;
use crate::config::limits::OPERATION_LOCK_DEADLINE;
use crate::config::limits::OPERATION_LOCK_POLL_INTERVAL;
use crate::error::Error;
use crate::error::Kind;
use crate::output::Printer;
use crate::privileges;
use crate::tenant::id::TenantId;
use crate::tenant::lock::OperationLock;
use crate::tenant::record::Lifecycle;
use crate::tenant::record::Tenant;
use crate::tenant::registry::Registry;

mod access;
mod canaries;
mod completions;
mod configuration;
mod create;
mod doctor;
mod interruption;
mod inventory;
mod keeper;
mod list;
mod logs;
mod metrics;
mod password;
mod power;
mod psql;
mod reconcile;
mod remove;
mod serve;
mod server_tls;
mod sessions;
mod settings;
mod status;
mod tls;
mod url;
mod version;

/// What every verb works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where things lie.
    pub directories: Directories,
    /// Where words go.
    pub printer: Printer,
    /// The configuration file that was named.
    pub config: Option<PathBuf>,
}

/// Runs a verb that wants one thread and no runtime; none where it is not such a verb.
pub fn run_alone(cli: &Cli) -> Option<Result<u8, Error>> {
    match &cli.verb {
        Verb::Keeper(arguments) => {
            Some(directories(cli).and_then(|found| keeper::run(&found, arguments)))
        }
        _ => None,
    }
}

/// Runs a verb; gives the process's exit code.
///
/// # Errors
/// What went wrong, with its kind.
pub async fn run(cli: Cli, printer: Printer) -> Result<u8, Error> {
    let context = Context {
        directories: directories(&cli)?,
        printer,
        config: cli.directories.config.clone(),
    };
    let done = match cli.verb {
        // These see to signals themselves.
        Verb::Serve(arguments) => serve::run(&context, arguments).await,
        Verb::Create(arguments) => create::run(&context, arguments).await,
        // Its exit code is psql's.
        Verb::Psql(arguments) => {
            let psql = psql::run(&context, arguments);
            return Interruption::listen()?.ends(psql).await;
        }
        verb => Interruption::listen()?.ends(other(&context, verb)).await,
    };
    done.map(|()| 0)
}

/// For the verb that serves: becomes who it is to run as, and gives up what it will never need.
/// To be called before there is a second thread. Whether the verb serves.
///
/// # Errors
/// The user cannot be assumed, or its directories not be handed over.
pub fn confine(cli: &Cli) -> Result<bool, Error> {
    let Verb::Serve(arguments) = &cli.verb else {
        return Ok(false);
    };
    privileges::confine(arguments.user.as_ref(), &directories(cli)?)?;
    Ok(true)
}

async fn other(context: &Context, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::List(arguments) => list::run(context, arguments).await,
        Verb::Status(arguments) => status::run(context, arguments).await,
        Verb::Start(arguments) => power::run(context, arguments, power::Act::Start).await,
        Verb::Stop(arguments) => power::run(context, arguments, power::Act::Stop).await,
        Verb::Restart(arguments) => power::run(context, arguments, power::Act::Restart).await,
        Verb::Remove(arguments) => remove::run(context, arguments).await,
        Verb::Enable(arguments) => access::enable(context, arguments).await,
        Verb::Disable(arguments) => access::disable(context, arguments).await,
        Verb::Set(arguments) => settings::set(context, arguments).await,
        Verb::Show(arguments) => settings::show(context, arguments).await,
        Verb::Config(arguments) => configuration::run(context, arguments).await,
        Verb::Password(arguments) => password::run(context, arguments).await,
        Verb::Url(arguments) => url::run(context, arguments).await,
        Verb::Logs(arguments) => logs::run(context, arguments).await,
        Verb::Metrics => metrics::run(context).await,
        Verb::Sessions(arguments) => sessions::run(context, arguments).await,
        Verb::Tls(arguments) => tls::run(context, &arguments).await,
        Verb::Doctor(arguments) => doctor::run(context, arguments).await,
        Verb::Version(arguments) => version::run(context, arguments),
        Verb::Completions(arguments) => completions::run(context, &arguments),
        Verb::Keeper(_) | Verb::Serve(_) | Verb::Create(_) | Verb::Psql(_) => Ok(()),
    }
}

fn directories(cli: &Cli) -> Result<Directories, Error> {
    let absolute = |path| {
        std::path::absolute(path).map_err(|error| {
            Error::new(
                Kind::Usage,
                format!("cannot tell what directory is meant: {error}"),
            )
        })
    };
    let arguments = &cli.directories;
    Ok(Directories::new(
        absolute(&arguments.state_dir)?,
        absolute(&arguments.run_dir)?,
    ))
}

/// The lock of one tenant, waited for.
async fn lock(context: &Context, tenant: &TenantId) -> Result<OperationLock, Error> {
    let begin = Instant::now();
    loop {
        if let Some(lock) = OperationLock::try_acquire(&context.directories, tenant)? {
            return Ok(lock);
        }
        if begin.elapsed() > OPERATION_LOCK_DEADLINE {
            return Err(busy(tenant));
        }
        sleep(OPERATION_LOCK_POLL_INTERVAL).await;
    }
}

/// A tenant that exists, locked. No lock file stays behind for one that does not.
async fn lock_ready(
    context: &Context,
    registry: &Registry,
    tenant: &TenantId,
) -> Result<(OperationLock, Tenant), Error> {
    let lock = lock(context, tenant).await?;
    match ready_tenant(registry, tenant) {
        Ok(found) => Ok((lock, found)),
        Err(error) => {
            unless_known(registry, tenant, lock)?;
            Err(error)
        }
    }
}

/// Takes the lock's file away where there is no such tenant.
fn unless_known(registry: &Registry, tenant: &TenantId, lock: OperationLock) -> Result<(), Error> {
    if registry.find(tenant)?.is_none() {
        lock.retire()?;
    }
    Ok(())
}

fn busy(tenant: &TenantId) -> Error {
    Error::new(
        Kind::Busy,
        format!("another command is at work on tenant `{tenant}`"),
    )
    .with_hint("wait until it is done; `pgs list` shows what it is doing")
}

/// A tenant that exists.
fn ready_tenant(registry: &Registry, tenant: &TenantId) -> Result<Tenant, Error> {
    match registry.find(tenant)? {
        Some(found) if found.lifecycle == Lifecycle::Ready => Ok(found),
        Some(_) => Err(busy(tenant)),
        None => Err(not_found(tenant)),
    }
}

fn not_found(tenant: &TenantId) -> Error {
    Error::new(Kind::NotFound, format!("there is no tenant `{tenant}`")).with_hint(format!(
        "`pgs list` shows who there is; `pgs create {tenant}` makes it"
    ))
}
