//! What the kernel redirects wakes nobody in the router.

use anyhow::ensure;
use pgs_tests::processor::voluntary_switches;
use pgs_tests::router::DataPath;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Wire;

use super::say;

/// Small queries, one after the other; and as many before, in which a session may still come to the
/// router.
const QUERIES: u64 = 6_000;
const QUERIES_BEFORE: u64 = 200;

/// Of so many queries at the most one may wake a thread of the router: what it does by itself,
/// every second, is in this too.
const QUERIES_A_WAKE_MIN: u64 = 20;

pub(super) fn redirected_turns(stage: &Stage) -> anyhow::Result<()> {
    if stage.path() == DataPath::Relay {
        return Skip::on_this_path("the relay is woken for each turn");
    }
    let login = stage.alpha()?;
    // With nobody else in it.
    let router = stage.installation()?.second_router("undisturbed")?;
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(login)?;
    ask(&mut wire, QUERIES_BEFORE)?;
    let sessions = router.sessions(&login.user)?;
    ensure!(
        sessions.len() == 1 && sessions[0]["path"] == "kernel",
        "{sessions:?}"
    );
    let before = voluntary_switches(router.process_id())?;
    ask(&mut wire, QUERIES)?;
    let wakes = voluntary_switches(router.process_id())? - before;
    say(&format!(
        "redirected turns: {QUERIES} queries, {wakes} wakes of the router's threads"
    ));
    ensure!(
        wakes < QUERIES / QUERIES_A_WAKE_MIN,
        "{wakes} wakes in {QUERIES} queries"
    );
    Ok(())
}

fn ask(wire: &mut Wire, queries: u64) -> anyhow::Result<()> {
    for number in 0..queries {
        let answer = wire.query_value(&format!("select {number}"))?;
        ensure!(answer == number.to_string(), "query {number}: {answer}");
    }
    Ok(())
}
