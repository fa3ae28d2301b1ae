//! One side ends while bytes of it wait for a router, and there is none: they come first.

use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;

use super::LIMIT;
use super::log_in;
use super::require_kernel;
use crate::drain::kill;

/// How long there is no router: several times what an end takes that nothing waits before.
const ALONE: Duration = Duration::from_secs(2);

/// Characters of a result that the kernel does not take in one turn, and that a source holds for a
/// router.
const RESULT: usize = 400_000;

/// Of a query, and the pieces that it is sent in: only the last ones are too much for one turn.
const QUERY: usize = 290_000;
const PIECE_BYTES: usize = 10_000;
const BETWEEN_PIECES: Duration = Duration::from_millis(5);

/// A session with a router that does nothing any more.
fn stopped(router: &Router, login: &Login) -> anyhow::Result<(Wire, String)> {
    let (mut wire, _) = log_in(router, login)?;
    let process_id = wire.query_value("select pg_backend_pid()")?;
    // The first query may have come by the router.
    ensure!(wire.query_value("select 1")? == "1");
    router.signal(Signal::SIGSTOP)?;
    Ok((wire, process_id))
}

pub(super) fn the_last_bytes_of_a_backend(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let login = stage.alpha()?;
    let mut first = stage.installation()?.second_router("last-of-a-backend")?;
    let mut watcher = stage.log_in(login)?;
    let (mut wire, process_id) = stopped(&first, login)?;
    wire.send_query(&format!("select repeat('x', {RESULT})"))?;
    // What the kernel has moved is taken, so that only the rest is in the way of the end.
    let reading = thread::spawn(move || anyhow::Ok((wire.until_ready()?, wire)));
    let of_it = format!("from pg_stat_activity where pid = {process_id}");
    let idle = format!("select count(*) {of_it} and state = 'idle' and query like '%repeat%'");
    process::eventually("all of the result is sent", LIMIT, || {
        Ok((watcher.query_value(&idle)? == "1").then_some(()))
    })?;
    kill(&mut first)?;
    watcher.query_value(&format!("select pg_terminate_backend({process_id})"))?;
    process::eventually("the backend is gone", LIMIT, || {
        let left = watcher.query_value(&format!("select count(*) {of_it}"))?;
        Ok((left == "0").then_some(()))
    })?;
    thread::sleep(ALONE);
    let _second = first.successor("second.log", &["--path", stage.path().as_str()])?;
    let read = reading.join().map_err(|_| anyhow!("the client's thread"))?;
    let (answer, mut wire) = read?;
    let row = answer.iter().find(|message| message.kind == b'D');
    let columns = row.map(Message::columns).transpose()?;
    let length = columns.map(|columns| columns[0].len());
    ensure!(length == Some(RESULT), "{length:?} of {RESULT}");
    let last = wire.message()?;
    ensure!(last.sqlstate().as_deref() == Some("57P01"), "{last:?}");
    ensure!(wire.message_or_end()?.is_none(), "it goes on");
    Ok(())
}

pub(super) fn the_last_bytes_of_a_client(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let login = stage.alpha()?;
    let mut first = stage.installation()?.second_router("last-of-a-client")?;
    let (mut wire, _) = stopped(&first, login)?;
    let query = format!("select length('{}')\0", "x".repeat(QUERY));
    for piece in packed(b'Q', query.as_bytes()).chunks(PIECE_BYTES) {
        wire.send(piece)?;
        thread::sleep(BETWEEN_PIECES);
    }
    wire.shut_down_writing()?;
    kill(&mut first)?;
    thread::sleep(ALONE);
    let _second = first.successor("second.log", &["--path", stage.path().as_str()])?;
    let answer = wire.until_ready()?;
    let row = answer.iter().find(|message| message.kind == b'D');
    let columns = row.map(Message::columns).transpose()?;
    let length = QUERY.to_string();
    ensure!(columns == Some(vec![length.as_bytes()]), "{columns:?}");
    ensure!(wire.message_or_end()?.is_none(), "it goes on");
    Ok(())
}
