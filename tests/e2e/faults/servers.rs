//! The server goes away while a result streams: the client gets what was sent before, in order,
//! and then the end; nothing of the session is left; and the tenant can be used again.

use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Tenant;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use super::churn::until_nothing_is_left;

const ROW_BYTES: usize = 1_000;

/// Rows that are read before the server goes.
const ROWS_BEFORE: usize = 5_000;

/// Until the client's connection is closed, and until everything is gone.
const PROMPT: Duration = Duration::from_secs(10);

/// For a server to come back.
const BACK_LIMIT: Duration = Duration::from_secs(60);

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// How the server goes: told of the tenant and of the backend's process id within its container.
type End = fn(&Stage, &Tenant<'_>, &str) -> anyhow::Result<()>;

pub(super) fn killed_backend(stage: &Stage) -> anyhow::Result<()> {
    server_goes(stage, "shot", |stage, tenant, backend| {
        let mut killer = stage.log_in(tenant.login())?;
        killer.send_query(&format!(
            "create temp table said (line text); copy said from program 'kill -9 {backend}'"
        ))?;
        // The others are ended by their postmaster, this one too.
        killer.receive_until_quiet(PROMPT).map(drop)
    })
}

pub(super) fn killed_container(stage: &Stage) -> anyhow::Result<()> {
    server_goes(stage, "sunk", |stage, tenant, _| {
        let state = stage.installation()?.state_directory();
        let label = format!("label=dev.pgs.state-dir={}", state.display());
        let list = ["ps", "--format", "{{.Names}}", "--filter", &label];
        let names = process::run(Command::new("docker").args(list), COMMAND_LIMIT)?.success()?;
        let suffix = format!("-{}", tenant.id());
        let name = names.lines().find(|name| name.ends_with(&suffix));
        let kill = ["kill", name.context("no container")?];
        process::run(Command::new("docker").args(kill), COMMAND_LIMIT)?.success()?;
        stage.router()?.pgs(&["start", tenant.id()]).map(drop)
    })
}

pub(super) fn stopped_tenant(stage: &Stage) -> anyhow::Result<()> {
    server_goes(stage, "halted", |stage, tenant, _| {
        stage.router()?.pgs(&["stop", tenant.id()])?;
        stage.router()?.pgs(&["start", tenant.id()]).map(drop)
    })
}

/// Once for a client that reads, and once for one that begins to read when all is over.
fn server_goes(stage: &Stage, id: &str, end: End) -> anyhow::Result<()> {
    let installation = stage.installation()?;
    let tenant = installation.create_tenant_with(id, &["--enable", "--superuser"])?;
    let router = installation.second_router(&format!("router-of-{id}"))?;
    for reads in [true, false] {
        let (mut wire, backend) = begin(&router, &tenant)?;
        let mut rows = Rows(0);
        while rows.0 < ROWS_BEFORE {
            rows.take(&wire.message()?)?;
        }
        let ended = if reads {
            std::thread::scope(|scope| {
                let reading = scope.spawn(|| rows.read_on(&mut wire));
                end(stage, &tenant, &backend)?;
                reading
                    .join()
                    .map_err(|_| anyhow::anyhow!("the reader panicked"))?
            })?
        } else {
            end(stage, &tenant, &backend)?;
            rows.read_on(&mut wire)?
        };
        ensure!(ended < PROMPT, "reads: {reads}: closed after {ended:?}");
        ensure!(rows.0 >= ROWS_BEFORE, "{} rows", rows.0);
        drop(wire);
        process::eventually("the server is back", BACK_LIMIT, || {
            Ok(stage.log_in(tenant.login()).ok())
        })?;
        ensure!(
            router.sessions(tenant.id())?.is_empty(),
            "reads: {reads}: its session is listed"
        );
        if stage.path() == DataPath::Kernel {
            until_nothing_is_left(&router)?;
        }
    }
    Ok(())
}

fn begin(router: &Router, tenant: &Tenant<'_>) -> anyhow::Result<(Wire, String)> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(tenant.login())?;
    let backend = wire.query_value("select pg_backend_pid()")?;
    wire.send_query(&format!(
        "select lpad(i::text, {ROW_BYTES}, 'x') from generate_series(1, 100000000) i"
    ))?;
    Ok((wire, backend))
}

/// How many rows have come, each where it belongs.
struct Rows(usize);

impl Rows {
    fn take(&mut self, message: &Message) -> anyhow::Result<()> {
        if message.kind == b'D' {
            self.0 += 1;
            let expected = format!("{:x>ROW_BYTES$}", self.0);
            ensure!(
                message.columns()? == [expected.as_bytes()],
                "row {}",
                self.0
            );
        }
        Ok(())
    }

    /// Reads until the connection ends, be it within a message; how long after the last byte.
    fn read_on(&mut self, wire: &mut Wire) -> anyhow::Result<Duration> {
        loop {
            let waiting = Instant::now();
            match wire.message_or_end() {
                Ok(Some(message)) => self.take(&message)?,
                Ok(None) | Err(_) => return Ok(waiting.elapsed()),
            }
        }
    }
}
