//! A tenant's container comes and goes while clients use it.

use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("stop_and_start_under_load", stop_and_start_under_load),
    (
        "a_killed_container_ends_its_sessions",
        a_killed_container_ends_its_sessions,
    ),
];

const LOADERS: usize = 6;
const LIMIT: Duration = Duration::from_secs(60);

/// Clients that query until they cannot any more; each gives the last message it got.
fn load(stage: &Stage, login: &Login) -> anyhow::Result<Vec<JoinHandle<Option<Message>>>> {
    let (started, has_started) = mpsc::channel();
    let mut loaders = Vec::new();
    for _ in 0..LOADERS {
        let mut wire = stage.log_in(login)?;
        let started = started.clone();
        loaders.push(thread::spawn(move || {
            let mut last = None;
            while let Some(message) = next(&mut wire, last.as_ref()) {
                if last.is_none() {
                    started.send(()).ok()?;
                }
                last = Some(message);
            }
            last
        }));
    }
    drop(started);
    for _ in 0..LOADERS {
        has_started
            .recv_timeout(LIMIT)
            .context("a loader does not begin")?;
    }
    Ok(loaders)
}

/// The next message of an endless row of queries; `None` at the end of the connection.
fn next(wire: &mut Wire, last: Option<&Message>) -> Option<Message> {
    if last.is_none_or(|message| message.kind == b'Z') {
        // When this fails, the reason may still be there to read.
        let _unsent = wire.send_query("select count(*) from generate_series(1, 1000)");
    }
    wire.message_or_end().ok().flatten()
}

/// The SQLSTATE with which a new connection is refused; `None` if it is let in.
fn refused(stage: &Stage, login: &Login) -> anyhow::Result<Option<String>> {
    let mut wire = stage.connect()?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", &login.user)]))?;
    Ok(wire.authenticate(&login.password)?.refused())
}

/// Until it is let in, every attempt is refused with 57P03 and nothing else.
fn comes_back(stage: &Stage, login: &Login) -> anyhow::Result<()> {
    process::eventually("the tenant is back", LIMIT, || {
        match refused(stage, login)? {
            None => Ok(Some(())),
            Some(state) if state == "57P03" => Ok(None),
            Some(state) => bail!("refused with {state}"),
        }
    })
}

fn stop_and_start_under_load(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant("mortal")?;
    let login = tenant.login();
    stage
        .log_in(login)?
        .query("create table kept as select 42 as answer")?;
    for _ in 0..2 {
        let loaders = load(stage, login)?;
        router.pgs(&["stop", tenant.id()])?;
        for loader in loaders {
            let last = loader
                .join()
                .map_err(|_| anyhow::anyhow!("a loader panicked"))?;
            let state = last.as_ref().and_then(Message::sqlstate);
            ensure!(
                state.as_deref() == Some("57P01"),
                "the last that a client got: {last:?}"
            );
        }
        let state = refused(stage, login)?;
        ensure!(
            state.as_deref() == Some("57P03"),
            "while it is stopped: {state:?}"
        );
        router.pgs(&["start", tenant.id()])?;
        comes_back(stage, login)?;
        ensure!(
            stage
                .log_in(login)?
                .query_value("select answer from kept")?
                == "42"
        );
    }
    let loaders = load(stage, login)?;
    router.pgs(&["restart", tenant.id()])?;
    comes_back(stage, login)?;
    for loader in loaders {
        loader
            .join()
            .map_err(|_| anyhow::anyhow!("a loader panicked"))?;
    }
    Ok(())
}

fn a_killed_container_ends_its_sessions(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant("victim")?;
    let login = tenant.login();
    let mut idle = stage.log_in(login)?;
    let mut streaming = stage.log_in(login)?;
    streaming.send_query("select repeat('x', 1000000) from generate_series(1, 1000000)")?;
    streaming.receive(10_000_000)?;
    let mut kill = Command::new("docker");
    kill.args(["kill", &container_of(stage, tenant.id())?]);
    process::run(&mut kill, LIMIT)?.success()?;
    // Both end, with or without an error, but they do end.
    idle.set_read_limit(LIMIT / 10)?;
    idle.receive_until_quiet(LIMIT / 10)?
        .1
        .then_some(())
        .context("the idle session hangs")?;
    streaming
        .receive_until_quiet(LIMIT / 10)?
        .1
        .then_some(())
        .context("the streaming session hangs")?;
    router.pgs(&["start", tenant.id()])?;
    comes_back(stage, login)
}

/// By the labels that pgs puts on every container.
fn container_of(stage: &Stage, tenant: &str) -> anyhow::Result<String> {
    let state = stage.installation()?.scratch("state");
    let mut list = Command::new("docker");
    list.args(["ps", "--no-trunc", "--quiet"])
        .args(["--filter", &format!("label=dev.pgs.tenant={tenant}")])
        .args([
            "--filter",
            &format!("label=dev.pgs.state-dir={}", state.display()),
        ]);
    let printed = process::run(&mut list, LIMIT)?.success()?;
    let mut ids = printed.lines();
    let id = ids.next().context("no container has the tenant's labels")?;
    ensure!(
        ids.next().is_none(),
        "several containers have the tenant's labels"
    );
    Ok(id.to_owned())
}
