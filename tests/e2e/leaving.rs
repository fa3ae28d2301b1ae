//! SIGUSR1, by which a service manager starts the router anew: what can go on without it does.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::router::DataPath;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "sessions_are_left_to_the_next_router",
        sessions_are_left_to_the_next_router,
    ),
    (
        "without_a_keeper_sessions_are_waited_for",
        without_a_keeper_sessions_are_waited_for,
    ),
];

const PROMPT: Duration = Duration::from_secs(8);

fn sessions_are_left_to_the_next_router(stage: &Stage) -> anyhow::Result<()> {
    let login = stage.alpha()?;
    let mut first = stage.installation()?.second_router("left")?;
    let mut wire = Wire::connect_tcp(first.address())?;
    wire.log_in(login)?;
    ensure!(wire.query_value("select 1")? == "1");
    let before = first.sessions(&login.user)?;
    first.signal(Signal::SIGUSR1)?;
    let ended = first.wait(PROMPT)?.context("it waits for its sessions")?;
    ensure!(ended.success(), "{ended}: {}", first.log());
    if stage.path() == DataPath::Relay {
        // Its bytes went through the router, as at any other end of it.
        ensure!(wire.message_or_end()?.is_none(), "it goes on");
    } else {
        ensure!(
            wire.query_value("select 2")? == "2",
            "it ends with the router"
        );
    }
    // Whoever connects meanwhile waits.
    let mut newcomer = Wire::connect_tcp(first.address())?;
    let path = ["--path", stage.path().as_str()];
    let second = first.successor("second.log", &path)?;
    newcomer.log_in(login)?;
    ensure!(newcomer.query_value("select 3")? == "3");
    if stage.path() == DataPath::Kernel {
        let after = second.sessions(&login.user)?;
        ensure!(after[0]["id"] == before[0]["id"], "{before:?}, {after:?}");
        ensure!(wire.query_value("select 4")? == "4");
    }
    Ok(())
}

fn without_a_keeper_sessions_are_waited_for(stage: &Stage) -> anyhow::Result<()> {
    let arguments = ["--keeper", "off"];
    let router = stage
        .installation()?
        .second_router_with("not-left", &arguments)?;
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(stage.alpha()?)?;
    router.signal(Signal::SIGUSR1)?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(wire.query_value("select 1")? == "1", "the session is gone");
    Ok(())
}
