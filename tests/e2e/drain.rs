//! SIGTERM: the first one lets sessions end, the second one does not.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
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
        "sigkill_leaves_nothing_behind",
        sigkill_leaves_nothing_behind,
    ),
];

const PROMPT: Duration = Duration::from_secs(3);

fn a_session_outlives_the_first_sigterm(stage: &Stage) -> anyhow::Result<()> {
    let login = stage.alpha()?;
    let mut router = stage.installation()?.second_router("drain")?;
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(login)?;
    wire.send_query("select pg_sleep(1), 'still here'")?;
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

/// A router on the same run directory starts again after the last one was killed.
fn sigkill_leaves_nothing_behind(stage: &Stage) -> anyhow::Result<()> {
    let login = stage.alpha()?;
    for _ in 0..2 {
        let mut router = stage.installation()?.second_router("killed")?;
        let mut wire = Wire::connect_tcp(router.address())?;
        wire.log_in(login)?;
        ensure!(wire.query_value("select 1")? == "1");
        router.signal(Signal::SIGKILL)?;
        router.wait(PROMPT)?;
    }
    Ok(())
}
