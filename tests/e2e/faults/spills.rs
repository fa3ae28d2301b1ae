//! From the kernel to the router and back, again and again, and both directions full at once.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;
use pgs_tests::length::Length;
use pgs_tests::pattern::lpad;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Wire;
use serde_json::Value;

use super::say;

/// More than the verdict redirects of one turn.
const LARGE_BYTES: usize = 300_000;

/// Less than it diverts of any.
const SMALL_BYTES: usize = 1_000;

/// Every so many turns the query is the large one, and not its answer.
const LARGE_QUERY_EVERY: usize = 8;

/// Sessions that work beside the one that is looked at.
const OTHERS: usize = 3;

const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn a_thousand(stage: &Stage) -> anyhow::Result<()> {
    let spills = Length::of_this_run()?.pick(1_000, 20_000);
    let mut wire = stage.log_in(stage.alpha()?)?;
    let backend: u64 = wire.query_value("select pg_backend_pid()")?.parse()?;
    let others: Result<Vec<_>, _> = (0..OTHERS).map(|_| stage.log_in(stage.beta()?)).collect();
    let done = AtomicBool::new(false);
    let turns = thread::scope(|scope| {
        let others: Vec<_> = others?
            .into_iter()
            .map(|other| scope.spawn(|| work(other, &done)))
            .collect();
        let spilled = spill(&mut wire, spills);
        done.store(true, Relaxed);
        let mut turns = 0;
        for other in others {
            turns += other.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        spilled.map(|()| turns)
    })?;
    ensure!(turns > OTHERS, "nobody worked beside it");
    if stage.path() == DataPath::Relay {
        return Ok(());
    }
    let session = listed(stage, backend)?;
    let diversions = session["diversions"].as_u64().context("no diversions")?;
    say(&format!(
        "spills: {spills} large turns between small ones, {diversions} diversions, {} bytes in \
         the kernel; {turns} turns beside it",
        session["bytes_in_kernel"]
    ));
    ensure!(diversions >= spills as u64, "{session}");
    // The small answers, after each of which a large turn had brought it to the router.
    let small = (spills * SMALL_BYTES) as u64;
    ensure!(
        session["bytes_in_kernel"].as_u64() >= Some(small),
        "{session}"
    );
    Ok(())
}

/// A large turn, which comes to the router, and a small one, which does not.
fn spill(wire: &mut Wire, spills: usize) -> anyhow::Result<()> {
    for turn in 0..spills {
        if turn % LARGE_QUERY_EVERY == 0 {
            turns(wire, turn, LARGE_BYTES, SMALL_BYTES)?;
        } else {
            turns(wire, turn, 0, LARGE_BYTES + turn)?;
        }
        turns(wire, turn, 0, SMALL_BYTES)?;
    }
    Ok(())
}

fn turns(wire: &mut Wire, turn: usize, query: usize, answer: usize) -> anyhow::Result<()> {
    let padding = "p".repeat(query);
    let sql = format!("select lpad('{turn}', {answer}, 'x') /* {padding} */");
    let found = wire.query_value(&sql)?;
    let expected = lpad(turn, answer, "x");
    ensure!(
        found == expected,
        "turn {turn} of {query} and {answer} bytes"
    );
    Ok(())
}

pub(super) fn work(mut wire: Wire, done: &AtomicBool) -> anyhow::Result<usize> {
    let mut turn = 0;
    while !done.load(Relaxed) {
        turn += 1;
        turns(
            &mut wire,
            turn,
            turn % SMALL_BYTES,
            10 + turn * 7 % LARGE_BYTES,
        )
        .context("a session beside it")?;
    }
    Ok(turn)
}

pub(super) fn listed(stage: &Stage, backend: u64) -> anyhow::Result<Value> {
    let tenant = &stage.alpha()?.user;
    process::eventually("the session is listed", LIMIT, || {
        let sessions = stage.router()?.sessions(tenant)?.into_iter();
        let mut ours = sessions.filter(|session| session["backend_pid"] == backend);
        Ok(ours.next())
    })
}

/// All queries are on their way, and the server waits with an answer, before the first one is read.
pub(super) fn written_before_read(stage: &Stage) -> anyhow::Result<()> {
    const BYTES: usize = 1_000_000;
    let queries = Length::of_this_run()?.pick(100, 2_000);
    let mut wire = stage.log_in(stage.alpha()?)?;
    let backend = wire.query_value("select pg_backend_pid()")?;
    let waits = format!("select wait_event from pg_stat_activity where pid = {backend}");
    let mut watcher = stage.log_in(stage.alpha()?)?;
    for number in 0..queries {
        wire.send_query(&format!("select lpad('{number}', {BYTES}, 'x')"))?;
    }
    process::eventually("the server waits", LIMIT, || {
        Ok((watcher.query_value(&waits)? == "ClientWrite").then_some(()))
    })?;
    for number in 0..queries {
        let answered = wire.until_ready()?;
        let row = answered.iter().find(|message| message.kind == b'D');
        let row = row.with_context(|| format!("no row for query {number}"))?;
        let expected = lpad(number, BYTES, "x");
        ensure!(row.columns()? == [expected.as_bytes()], "row {number}");
    }
    Ok(())
}
