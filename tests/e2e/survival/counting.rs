//! What is counted goes on counting under the next router, and for nobody else.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;

use super::LIMIT;
use super::log_in;
use super::require_kernel;
use crate::drain::kill;

/// Characters of a result that is small enough for the kernel, and how often it is asked for.
const SMALL: usize = 20_000;
const TURNS: usize = 10;
const MOVED: u64 = (SMALL * TURNS) as u64;

/// More than the messages of a login and of one small query.
const LITTLE: u64 = 2_000;

/// Characters of a result, and of a query, that the router has its part in.
const LARGE: usize = 8_000_000;
const LARGE_QUERY: usize = 1_000_000;

/// How long a backend is at work, and bytes of a query that it does not read meanwhile: more than
/// its socket holds.
const BUSY_SECONDS: u32 = 5;
const WAITING: usize = 600_000;

/// Moves bytes through the kernel alone.
fn small_turns(wire: &mut Wire) -> anyhow::Result<()> {
    for _ in 0..TURNS {
        let answer = wire.query_value(&format!("select repeat('x', {SMALL})"))?;
        ensure!(answer.len() == SMALL);
    }
    Ok(())
}

/// What the kernel has counted for a tenant, to its clients.
fn counted(router: &Router, login: &Login) -> anyhow::Result<u64> {
    let status = router.status()?;
    let bytes = &status["kernel_bytes"][&login.user];
    Ok(bytes["to_client"].as_u64().unwrap_or(0))
}

fn until_counted(router: &Router, login: &Login, least: u64) -> anyhow::Result<u64> {
    process::eventually("it is counted", LIMIT, || {
        Ok(Some(counted(router, login)?).filter(|count| *count >= least))
    })
}

pub(super) fn a_tenants_bytes_are_never_anothers(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let [ended, live, new] = [stage.alpha()?, stage.beta()?, stage.chief()?];
    let mut first = stage.installation()?.second_router("counted")?;
    let (mut wire, _) = log_in(&first, ended)?;
    small_turns(&mut wire)?;
    until_counted(&first, ended, MOVED)?;
    let (mut goes_on, _) = log_in(&first, live)?;
    small_turns(&mut goes_on)?;
    let before = until_counted(&first, live, MOVED)?;
    drop(wire);
    process::eventually("its session is over", LIMIT, || {
        Ok(first.sessions(&ended.user)?.is_empty().then_some(()))
    })?;
    kill(&mut first)?;

    let second = first.successor("second.log", &["--path", stage.path().as_str()])?;
    let (mut newcomer, _) = log_in(&second, new)?;
    ensure!(newcomer.query_value("select 1")? == "1");
    let (mut again, _) = log_in(&second, ended)?;
    ensure!(again.query_value("select 1")? == "1");
    let [of_new, of_ended] = [counted(&second, new)?, counted(&second, ended)?];
    ensure!(of_new < LITTLE, "{of_new} bytes of one that is new");
    ensure!(of_ended < LITTLE, "{of_ended} bytes of before");
    small_turns(&mut goes_on)?;
    until_counted(&second, live, before + MOVED).map(drop)
}

/// It counts on the maps that the new router has, too.
pub(super) fn bytes_of_a_session_that_stays_are_never_anothers(
    stage: &Stage,
) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let [stays, new] = [stage.alpha()?, stage.beta()?];
    let first = stage.installation()?.second_router("counted-apart")?;
    let (mut wire, _) = log_in(&first, stays)?;
    wire.send_query(&format!("select pg_sleep({BUSY_SECONDS})"))?;
    // Of this the router has a part in its hand.
    wire.send_query(&format!("select length('{}')", "x".repeat(WAITING)))?;
    let arguments = ["--path", stage.path().as_str(), "--take-over"];
    let second = first.successor("second.log", &arguments)?;
    let listed = second.sessions(&stays.user)?;
    let elsewhere = format!("with process {}, until it ends", first.process_id());
    ensure!(
        listed.len() == 1 && listed[0]["path_reason"] == *elsewhere,
        "{listed:?}"
    );
    let (mut newcomer, _) = log_in(&second, new)?;
    ensure!(newcomer.query_value("select 1")? == "1");
    wire.until_ready()?;
    wire.until_ready()?;
    small_turns(&mut wire)?;
    thread::sleep(Duration::from_millis(100));
    let bytes = counted(&second, new)?;
    ensure!(bytes < LITTLE, "{bytes} bytes of one that is new");
    Ok(())
}

/// Bytes of the one session to its backend and to its client, as `pgs sessions --json` has them.
fn moved(router: &Router, login: &Login) -> anyhow::Result<[u64; 2]> {
    let sessions = router.sessions(&login.user)?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    let count = |name: &str| sessions[0][name].as_u64().context("no bytes");
    Ok([count("bytes_to_backend")?, count("bytes_to_client")?])
}

pub(super) fn what_routers_have_moved_counts_on(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let login = stage.alpha()?;
    let mut first = stage.installation()?.second_router("counted-on")?;
    let (mut wire, _) = log_in(&first, login)?;
    let mut large = || {
        let query = format!("select length('{}')", "x".repeat(LARGE_QUERY));
        ensure!(wire.query_value(&query)? == LARGE_QUERY.to_string());
        let answer = wire.query_value(&format!("select repeat('x', {LARGE})"))?;
        ensure!(answer.len() == LARGE, "{} bytes", answer.len());
        Ok(())
    };
    large()?;
    let all_of = |router: &Router, turns: usize| {
        process::eventually("all of it is counted", LIMIT, || {
            let [to_backend, to_client] = moved(router, login)?;
            let all =
                to_backend >= (turns * LARGE_QUERY) as u64 && to_client >= (turns * LARGE) as u64;
            Ok(all.then_some([to_backend, to_client]))
        })
    };
    let before = all_of(&first, 1)?;
    kill(&mut first)?;
    let path = stage.path().as_str();
    let second = first.successor("second.log", &["--path", path])?;
    let after = moved(&second, login)?;
    ensure!(after == before, "killed: {before:?}, then {after:?}");
    large()?;
    let before = all_of(&second, 2)?;
    let third = second.successor("third.log", &["--path", path, "--take-over"])?;
    let after = moved(&third, login)?;
    ensure!(after == before, "taken over: {before:?}, then {after:?}");
    Ok(())
}
