//! The server goes away while a result streams: the client gets what was sent before, in order,
//! and then the end; nothing of the session is left; and the tenant can be used again.
//!
//! How much was sent the server knows, which counts the rows by a sequence.

use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::tenant::Tenant;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use super::churn::until_nothing_is_left;

const ROW_BYTES: usize = 1_000;

/// Rows that are read before the server goes.
const ROWS_BEFORE: usize = 5_000;

/// Until the client's connection is closed, and until everything is gone.
const PROMPT: Duration = Duration::from_secs(10);

/// Between two looks at what a backend has sent.
const SETTLE: Duration = Duration::from_millis(300);

/// For a server to come back.
const BACK_LIMIT: Duration = Duration::from_secs(60);

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Rows that a backend may have counted and not sent: the 8 KiB of its own buffer, and the one that
/// it is about to put there.
const UNSENT_ROWS_MAX: usize = 8_192 / ROW_BYTES + 2;

/// Rows that wait between a server and a client that does not read, at the least: more than a
/// backend may have kept.
const WAITING_ROWS_MIN: usize = 10 * UNSENT_ROWS_MAX;

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
        let kill = ["kill", &stage.installation()?.container_of(tenant.id())?];
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
        let (mut wire, backend) = begin(&router, tenant.login())?;
        let mut rows = Rows::default();
        rows.read_to(&mut wire, ROWS_BEFORE)?;
        let mut sent = ROWS_BEFORE;
        let ended = if reads {
            std::thread::scope(|scope| {
                let reading = scope.spawn(|| rows.read_on(&mut wire));
                end(stage, &tenant, &backend)?;
                reading
                    .join()
                    .map_err(|_| anyhow::anyhow!("the reader panicked"))?
            })?
        } else {
            sent = sent_when_asleep(&mut stage.log_in(tenant.login())?, &backend)?;
            ensure!(
                sent >= ROWS_BEFORE + WAITING_ROWS_MIN,
                "only {sent} rows sent"
            );
            end(stage, &tenant, &backend)?;
            rows.read_on(&mut wire)?
        };
        ensure!(ended < PROMPT, "reads: {reads}: closed after {ended:?}");
        ensure!(
            rows.0 >= sent,
            "reads: {reads}: {} rows of at least {sent}",
            rows.0
        );
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

/// A client with a result without end, and the process id of its backend.
pub(super) fn begin(router: &Router, login: &Login) -> anyhow::Result<(Wire, String)> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(login)?;
    wire.query("drop sequence if exists sent; create sequence sent")?;
    let backend = wire.query_value("select pg_backend_pid()")?;
    // A series in a subquery's list is made as it is sent, and not before.
    wire.send_query(&format!(
        "select lpad(nextval('sent')::text, {ROW_BYTES}, 'x') \
         from (select generate_series(1, 100000000)) series"
    ))?;
    Ok((wire, backend))
}

/// Waits until a backend sleeps because nobody takes its rows; how many it has sent at least.
pub(super) fn sent_when_asleep(watcher: &mut Wire, backend: &str) -> anyhow::Result<usize> {
    let waits = format!("select wait_event from pg_stat_activity where pid = {backend}");
    let mut last = 0_usize;
    process::eventually("the backend sleeps", PROMPT, || {
        let asleep = watcher.query_value(&waits)? == "ClientWrite";
        let counted = watcher
            .query_value("select last_value from sent")?
            .parse()?;
        let is_still = counted == last;
        last = counted;
        std::thread::sleep(SETTLE);
        Ok((asleep && is_still).then_some(()))
    })?;
    Ok(last.saturating_sub(UNSENT_ROWS_MAX))
}

/// How many rows have come, each where it belongs.
#[derive(Default)]
pub(super) struct Rows(pub(super) usize);

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

    /// Reads up to this row.
    pub(super) fn read_to(&mut self, wire: &mut Wire, row: usize) -> anyhow::Result<()> {
        while self.0 < row {
            self.take(&wire.message()?)?;
        }
        Ok(())
    }

    /// Reads until the connection ends, be it within a message; how long after the last byte.
    pub(super) fn read_on(&mut self, wire: &mut Wire) -> anyhow::Result<Duration> {
        loop {
            let waiting = Instant::now();
            match wire.message_or_end() {
                Ok(Some(message)) => self.take(&message)?,
                Ok(None) | Err(_) => return Ok(waiting.elapsed()),
            }
        }
    }
}
