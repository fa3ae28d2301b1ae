//! One side stands still while there is no router: the other is made to wait, and nothing piles up;
//! when there is one again, both go on where they were.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::anyhow;
use anyhow::ensure;
use pgs_tests::memory::MemoryUse;
use pgs_tests::pattern;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;

use super::churn::until_nothing_is_left;
use super::kills::require_kernel;
use super::say;
use super::stalls::BUSY_MAX;
use super::stalls::MEGABYTE;
use super::stalls::NOISE_BYTES_MAX;
use super::stalls::ROW_BYTES;
use super::stalls::Rows;
use super::stalls::SESSION_BYTES_MAX;
use super::stalls::stands_flat;
use crate::drain::keeper_of;
use crate::drain::kill;

/// How long a backend sleeps that is flooded: longer than there is no router.
const ASLEEP: Duration = Duration::from_secs(20);

/// More than all buffers of a session take.
const FLOOD_BYTES: usize = 64 << 20;

/// More than all buffers of a session and what the machine does besides.
const RESULT_BYTES: usize = 256 << 20;

/// What is taken of a flood.
const TAKEN_BYTES_MAX: usize = 24 << 20;

/// Of whom nothing was taken for so long is made to wait.
const STUCK: Duration = Duration::from_secs(1);

/// How long everything has to stay as it is.
const STALL: Duration = Duration::from_secs(2);

/// A router with this run directory, a session in the kernel, and a moment later no router.
fn alone(stage: &Stage, run: &str) -> anyhow::Result<(Router, u32, Wire)> {
    require_kernel(stage)?;
    let login = stage.alpha()?;
    let mut router = stage.installation()?.second_router(run)?;
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(login)?;
    ensure!(wire.query_value("select 1")? == "1");
    let sessions = router.sessions(&login.user)?;
    ensure!(
        sessions.len() == 1 && sessions[0]["path"] == "kernel",
        "{sessions:?}"
    );
    let keeper = keeper_of(&router)?;
    kill(&mut router)?;
    Ok((router, keeper, wire))
}

/// The same session is there, and afterwards nothing of it.
fn ends(stage: &Stage, router: &Router, mut wire: Wire) -> anyhow::Result<()> {
    let sessions = router.sessions(&stage.alpha()?.user)?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    ensure!(wire.query_value("select 2")? == "2");
    drop(wire);
    until_nothing_is_left(router)
}

pub(super) fn flood(stage: &Stage) -> anyhow::Result<()> {
    let (router, keeper, mut wire) = alone(stage, "flooded")?;
    let before = MemoryUse::now(keeper)?;
    let begun = Instant::now();
    wire.send_query(&format!("select pg_sleep({})", ASLEEP.as_secs()))?;
    let numbers: String = (0..FLOOD_BYTES / 10)
        .map(|at| format!("{at:0>10}"))
        .collect();
    let sql = format!("select encode(sha256('{numbers}'), 'hex')\0");
    let query = packed(b'Q', sql.as_bytes());
    wire.set_write_limit(STUCK)?;
    let taken = wire.send_until_stuck(&query)?;
    ensure!(taken < TAKEN_BYTES_MAX, "{taken} bytes were taken");
    let busy = stands_flat(keeper, STALL)?;
    ensure!(busy < BUSY_MAX, "the keeper: {busy} of a processor");
    let held = MemoryUse::now(keeper)?.growth_since(before);
    ensure!(held.tcp < 2 * SESSION_BYTES_MAX, "{held:?}");
    ensure!(begun.elapsed() < ASLEEP, "the backend is awake already");
    say(&format!(
        "a flood without a router: {taken} bytes taken, {} KiB more in TCP buffers",
        held.tcp / 1024
    ));
    let router = router.successor("next.log", &["--path", stage.path().as_str()])?;
    wire.set_write_limit(2 * ASLEEP)?;
    let (mut writer, rest) = (wire.try_clone()?, &query[taken..]);
    let answers = thread::scope(|scope| {
        let writing = scope.spawn(move || writer.send(rest));
        wire.until_ready()?;
        let answers = wire.until_ready()?;
        writing
            .join()
            .map_err(|_| anyhow!("the writer panicked"))??;
        anyhow::Ok(answers)
    })?;
    let row = answers.iter().find(|message| message.kind == b'D');
    let expected = pattern::sha256(numbers.as_bytes());
    let found = row.map(Message::columns).transpose()?;
    ensure!(
        found == Some(vec![expected.as_bytes()]),
        "other bytes than were sent: {answers:?}"
    );
    ends(stage, &router, wire)
}

pub(super) fn stopped_client(stage: &Stage) -> anyhow::Result<()> {
    const ROWS: usize = RESULT_BYTES / ROW_BYTES;
    let mut watcher = stage.log_in(stage.alpha()?)?;
    let (router, keeper, mut wire) = alone(stage, "unread")?;
    let backend = wire.query_value("select pg_backend_pid()")?;
    let waits = format!("select wait_event from pg_stat_activity where pid = {backend}");
    let before = MemoryUse::now(keeper)?;
    wire.send_query(&Rows::query(ROWS))?;
    process::eventually("the backend waits", STALL, || {
        Ok((watcher.query_value(&waits)? == "ClientWrite").then_some(()))
    })?;
    let busy = stands_flat(keeper, STALL)?;
    ensure!(busy < BUSY_MAX, "the keeper: {busy} of a processor");
    let held = MemoryUse::now(keeper)?.growth_since(before);
    say(&format!(
        "a stopped client without a router: {} KiB more in TCP buffers",
        held.tcp / 1024
    ));
    ensure!(
        held.tcp < SESSION_BYTES_MAX && held.kernel < SESSION_BYTES_MAX + NOISE_BYTES_MAX,
        "{held:?}"
    );
    ensure!(held.resident < MEGABYTE, "the keeper: {held:?}");
    let router = router.successor("next.log", &["--path", stage.path().as_str()])?;
    Rows::new().read_to(&mut wire, ROWS)?;
    wire.until_ready()?;
    ends(stage, &router, wire)
}
