//! Sessions on which nothing happens, and clients that do not acknowledge.

use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::stage::Stage;

use super::HERE;
use super::counter;
use super::log_in;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

const TIMEOUT: Duration = Duration::from_secs(2);

/// The sessions are looked at once a second, and the machine may be busy.
const MARGIN: Duration = Duration::from_secs(4);

pub(super) fn idle_sessions_end(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant("drowsy")?;
    let login = tenant.login();
    let mut from_before = log_in(router, HERE, login)?;
    router.pgs(&["set", tenant.id(), "idle_session_timeout=2s"])?;
    let ended = counter(router, "sessions_ended_idle")?;
    let mut idle = log_in(router, HERE, login)?;
    let mut asking = log_in(router, HERE, login)?;
    let mut listening = log_in(router, HERE, login)?;
    // A row fills what the server collects before it sends, so that one leaves every 0.5 s.
    // The last one comes before the other stops asking.
    listening.send_query(
        "copy (select repeat('x', 8192), pg_sleep(0.5)::text from generate_series(1, 11)) \
         to stdout",
    )?;
    let begin = Instant::now();
    while begin.elapsed() < TIMEOUT * 3 {
        ensure!(
            asking.query_value("select 1")? == "1",
            "the asking one ended"
        );
        thread::sleep(TIMEOUT / 8);
    }
    let copied = listening.until_ready().context("the listening one ended")?;
    let rows = copied.iter().filter(|message| message.kind == b'd').count();
    ensure!(rows == 11, "{rows} rows");
    ensure!(idle.message_or_end()?.is_none(), "the idle one goes on");
    let ended = counter(router, "sessions_ended_idle")? - ended;
    ensure!(ended == 1, "{ended} were ended");
    ensure!(
        router.log().contains("idle for too long"),
        "the log does not say why"
    );
    let value = from_before.query_value("select 1")?;
    ensure!(value == "1", "one from before the setting ended");
    let begin = Instant::now();
    process::eventually("all of them end", TIMEOUT + MARGIN, || {
        let sessions = router.sessions(tenant.id())?;
        Ok((sessions.len() == 1).then_some(()))
    })?;
    ensure!(
        begin.elapsed() > TIMEOUT / 2,
        "ended after {:?}",
        begin.elapsed()
    );
    Ok(())
}

pub(super) fn user_timeout(stage: &Stage) -> anyhow::Result<()> {
    let installation = stage.installation()?;
    let router =
        installation.configured_router("timeout", "[limits]\nclient_user_timeout = '2s'\n")?;
    let alpha = stage.alpha()?;
    let mut deaf = log_in(&router, HERE, alpha)?;
    let mut reading = log_in(&router, HERE, alpha)?;
    deaf.send_query("select repeat('x', 1000000) from generate_series(1, 100)")?;
    process::eventually("the deaf client is let go", Duration::from_secs(60), || {
        ensure!(
            reading.query_value("select 1")? == "1",
            "a client that reads ended"
        );
        thread::sleep(TIMEOUT / 8);
        Ok((router.sessions(&alpha.user)?.len() == 1).then_some(()))
    })?;
    ensure!(deaf.until_ready().is_err(), "its answer came to an end");
    Ok(())
}

/// As the kernel shows the router's end of a session that is silent.
pub(super) fn keepalive(stage: &Stage) -> anyhow::Result<()> {
    crate::queries::require("ss")?;
    let router = stage
        .installation()?
        .configured_router("keepalive", "[limits]\nclient_keepalive_idle = '33s'\n")?;
    let session = log_in(&router, HERE, stage.alpha()?)?;
    let (router_port, port) = (router.address().port(), session.local_address()?.port());
    let filter = format!("( sport = :{router_port} and dport = :{port} )");
    process::eventually("the client's silence is timed", MARGIN, || {
        let mut ss = Command::new("ss");
        let shown = process::run(ss.args(["-tnoH", &filter]), COMMAND_LIMIT)?.success()?;
        // Whole seconds, as `timer:(keepalive,32sec,0)`.
        let left = shown.split_once("timer:(keepalive,");
        let left = left.and_then(|(_, rest)| rest.split_once("sec"));
        let left = left.and_then(|(seconds, _)| seconds.parse::<u64>().ok());
        Ok(left
            .is_some_and(|left| (20..=33).contains(&left))
            .then_some(()))
    })
}
