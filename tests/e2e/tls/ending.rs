//! Sessions over TLS end with access, and with the router.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::login::first_packet;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::trust;
use pgs_tests::wire::Wire;

use super::Ground;
use super::SSL_REQUEST;
use super::TENANT;
use super::with_tls;

pub(super) fn ended_by_the_router(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        with_its_access(ground).context("disable")?;
        with_the_router(ground).context("SIGTERM")
    })
}

fn with_its_access(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut idle = ground.log_in()?;
    let mut busy = ground.log_in()?;
    busy.send_query("select pg_sleep(60)")?;
    ground.router.pgs(&["disable", TENANT])?;
    for wire in [&mut idle, &mut busy] {
        let mut states = Vec::new();
        while let Some(message) = wire.message_or_end()? {
            states.extend(message.sqlstate());
        }
        ensure!(states == ["57P01"], "{states:?}");
    }
    ensure!(ground.router.sessions(TENANT)?.is_empty());
    ground.router.pgs(&["enable", TENANT])?;
    Ok(())
}

/// One of its own, since the scenario's is needed to the end.
fn with_the_router(ground: &Ground<'_>) -> anyhow::Result<()> {
    let installation = ground.installation;
    let (state, run) = (
        installation.scratch("state"),
        installation.scratch("ending-run"),
    );
    let path = installation.path().as_str();
    let mut router = Router::start_with(&state, &run, &["--path", path])?;
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.send(&first_packet(SSL_REQUEST, b""))?;
    ensure!(wire.receive(1)? == b"S");
    let mut wire = wire.secure(trust::client(None, None)?)?;
    wire.log_in(ground.tenant.login())?;
    router.signal(Signal::SIGTERM)?;
    std::thread::sleep(Duration::from_millis(300));
    // It waits for its sessions, which go on.
    ensure!(wire.query_value("select 1")? == "1");
    let told = Instant::now();
    router.signal(Signal::SIGTERM)?;
    ensure!(
        wire.receive_to_end()?.is_empty(),
        "something came before the end"
    );
    let status = router.wait(Duration::from_secs(5))?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    ensure!(
        told.elapsed() < Duration::from_secs(4),
        "after {:?}",
        told.elapsed()
    );
    ensure!(router.log().contains("router shut down"));
    Ok(())
}
