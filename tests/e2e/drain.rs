//! SIGTERM: the first one lets sessions end, the second one does not. And SIGKILL.

use std::fs;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "a_session_outlives_the_first_sigterm",
        a_session_outlives_the_first_sigterm,
    ),
    (
        "the_second_sigterm_ends_at_once",
        the_second_sigterm_ends_at_once,
    ),
    (
        "killed_routers_leave_nothing_behind",
        killed_routers_leave_nothing_behind,
    ),
];

const PROMPT: Duration = Duration::from_secs(3);

fn a_session_outlives_the_first_sigterm(stage: &Stage) -> anyhow::Result<()> {
    let login = stage.alpha()?;
    let mut router = stage.installation()?.second_router("drain")?;
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(login)?;
    wire.send_query("select pg_sleep(1), 'still here'")?;
    // A name that somebody tidies away is no fault of the router's.
    fs::remove_file(router.run_directory().join("admin.sock"))?;
    router.signal(Signal::SIGTERM)?;
    thread::sleep(Duration::from_millis(300));
    let newcomer = Wire::connect_tcp(router.address()).and_then(|mut wire| {
        wire.send(&pgs_tests::login::startup_packet(
            pgs_tests::login::PROTOCOL_3_0,
            &[("user", &login.user)],
        ))?;
        wire.message()
    });
    // Refused by the kernel or by the router, but not let in.
    if let Ok(message) = newcomer {
        let state = message.sqlstate();
        ensure!(
            message.kind == b'E' && state.as_deref() == Some("57P03"),
            "a newcomer is let in: {message:?}"
        );
    }
    let answered = wire.until_ready().context("the running query")?;
    ensure!(
        answered.iter().any(|message| message.kind == b'D'),
        "{answered:?}"
    );
    ensure!(wire.query_value("select 1")? == "1", "the session goes on");
    wire.send_message(b'X', &[])?;
    let status = router
        .wait(PROMPT)?
        .context("it goes on after its last session ended")?;
    ensure!(status.success(), "{status}: {}", router.log());
    Ok(())
}

fn the_second_sigterm_ends_at_once(stage: &Stage) -> anyhow::Result<()> {
    let mut router = stage.installation()?.second_router("drain-at-once")?;
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(stage.alpha()?)?;
    wire.send_query("select pg_sleep(60)")?;
    router.signal(Signal::SIGTERM)?;
    thread::sleep(Duration::from_millis(300));
    let second = Instant::now();
    router.signal(Signal::SIGTERM)?;
    router
        .wait(PROMPT)?
        .context("it goes on after the second SIGTERM")?;
    ensure!(second.elapsed() < PROMPT, "after {:?}", second.elapsed());
    Ok(())
}

/// SIGKILL, which leaves it no time for anything.
pub(crate) fn kill(router: &mut Router) -> anyhow::Result<()> {
    router.signal(Signal::SIGKILL)?;
    router.wait(PROMPT)?.context("it outlives SIGKILL")?;
    Ok(())
}

/// The keeper's process id.
pub(crate) fn keeper_of(router: &Router) -> anyhow::Result<u32> {
    let survival = &router.status()?["survival"];
    let process_id = survival["process_id"].as_u64();
    let process_id = process_id.with_context(|| format!("no keeper: {survival}"))?;
    Ok(u32::try_from(process_id)?)
}

/// Waits until nothing of a router is left in its run directory, nor its keeper.
pub(crate) fn until_gone(router: &Router, keeper: u32, limit: Duration) -> anyhow::Result<()> {
    process::eventually("the keeper has ended", limit, || {
        Ok((!process::is_alive(keeper)).then_some(()))
    })?;
    let socket = router.run_directory().join("keeper.sock");
    ensure!(!socket.exists(), "{} stays", socket.display());
    Ok(())
}

/// A router starts again where one was killed, as often as that happens; and when one has ended in
/// order, nothing is left of any.
fn killed_routers_leave_nothing_behind(stage: &Stage) -> anyhow::Result<()> {
    let login = stage.alpha()?;
    let mut router = stage.installation()?.second_router("killed")?;
    let keeper = keeper_of(&router)?;
    for round in 0..2 {
        let mut wire = Wire::connect_tcp(router.address())?;
        wire.log_in(login)?;
        ensure!(wire.query_value("select 1")? == "1");
        kill(&mut router)?;
        drop(wire);
        let log = format!("{round}.log");
        router = router.successor(&log, &["--path", stage.path().as_str()])?;
        ensure!(keeper_of(&router)? == keeper, "another keeper");
    }
    process::eventually("the sessions of the killed are gone", PROMPT, || {
        Ok(router.sessions(&login.user)?.is_empty().then_some(()))
    })?;
    router.signal(Signal::SIGTERM)?;
    let ended = router.wait(PROMPT)?.context("it goes on")?;
    ensure!(ended.success(), "{ended}: {}", router.log());
    let socket = router.run_directory().join("admin.sock");
    ensure!(!socket.exists(), "{} stays", socket.display());
    until_gone(&router, keeper, PROMPT)
}
