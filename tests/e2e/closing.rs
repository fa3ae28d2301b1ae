//! The many ways in which a session ends: nothing is lost before the end, nothing is left after.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("terminate_closes", terminate_closes),
    (
        "a_query_and_its_end_in_one_segment",
        a_query_and_its_end_in_one_segment,
    ),
    (
        "a_reset_in_a_result_frees_the_backend",
        a_reset_frees_the_backend,
    ),
    (
        "the_last_error_of_a_backend_arrives",
        the_last_error_of_a_backend_arrives,
    ),
    (
        "a_backend_terminated_in_a_result_ends_it",
        a_backend_terminated_in_a_result_ends_it,
    ),
];

const LIMIT: Duration = Duration::from_secs(10);

fn terminate_closes(stage: &Stage) -> anyhow::Result<()> {
    let mut wire = stage.log_in_settled(stage.alpha()?)?;
    wire.send_message(b'X', &[])?;
    ensure!(wire.receive_to_end()?.is_empty(), "an answer to Terminate");
    let mut wire = stage.log_in_settled(stage.alpha()?)?;
    wire.shut_down_writing()?;
    ensure!(
        wire.receive_to_end()?.is_empty(),
        "an answer to the end of the stream"
    );
    Ok(())
}

fn a_query_and_its_end_in_one_segment(stage: &Stage) -> anyhow::Result<()> {
    for _ in 0..20 {
        let mut wire = stage.log_in_settled(stage.alpha()?)?;
        let terminate = packed(b'X', &[]);
        wire.send_with_end(&[packed(b'Q', b"select 'last words'\0"), terminate].concat())?;
        let received = wire.receive_to_end()?.escape_ascii().to_string();
        ensure!(received.contains("last words"), "{received}");
        ensure!(received.ends_with(r"Z\x00\x00\x00\x05I"), "{received}");
    }
    Ok(())
}

/// Whether this backend still runs, as its server sees it.
fn runs(observer: &mut Wire, process_id: &str) -> anyhow::Result<bool> {
    let sql = format!("select count(*) from pg_stat_activity where pid = {process_id}");
    Ok(observer.query_value(&sql)? == "1")
}

fn a_reset_frees_the_backend(stage: &Stage) -> anyhow::Result<()> {
    let (router, login) = (stage.router()?, stage.alpha()?);
    let mut observer = stage.log_in(login)?;
    let idle: &str = "select 1";
    let streaming = "select repeat('x', 100000) from generate_series(1, 1000000)";
    for (name, sql) in [("streaming", streaming), ("idle", idle)] {
        let mut wire = stage.log_in(login)?;
        let process_id = wire.query_value("select pg_backend_pid()")?;
        wire.send_query(sql)?;
        wire.receive(20)?;
        ensure!(
            runs(&mut observer, &process_id)?,
            "{name}: it does not run yet"
        );
        wire.reset()?;
        process::eventually(&format!("{name}: the backend is freed"), LIMIT, || {
            Ok((!runs(&mut observer, &process_id)?).then_some(()))
        })?;
        let gone = |session: &serde_json::Value| {
            session["backend_pid"].as_u64() == process_id.parse().ok()
        };
        process::eventually(&format!("{name}: the session is gone"), LIMIT, || {
            Ok((!router.sessions(&login.user)?.iter().any(gone)).then_some(()))
        })?;
    }
    Ok(())
}

fn the_last_error_of_a_backend_arrives(stage: &Stage) -> anyhow::Result<()> {
    let mut killer = stage.log_in(stage.alpha()?)?;
    for sql in [
        "select pg_sleep(60)",
        "select repeat('x', 1000000), pg_sleep(60)",
    ] {
        let mut wire = stage.log_in(stage.alpha()?)?;
        let process_id = wire.query_value("select pg_backend_pid()")?;
        wire.send_query(sql)?;
        std::thread::sleep(Duration::from_millis(200));
        killer.query_value(&format!("select pg_terminate_backend({process_id})"))?;
        let mut last = None;
        while let Some(message) = wire.message_or_end().with_context(|| format!("{last:?}"))? {
            last = Some(message);
        }
        let state = last.as_ref().and_then(Message::sqlstate);
        ensure!(
            state.as_deref() == Some("57P01"),
            "{sql}: the last message is {last:?}"
        );
    }
    Ok(())
}

/// A server that cannot send does not try to say why it ends, so only the end itself is seen.
fn a_backend_terminated_in_a_result_ends_it(stage: &Stage) -> anyhow::Result<()> {
    let mut killer = stage.log_in(stage.alpha()?)?;
    let mut wire = stage.log_in(stage.alpha()?)?;
    let process_id = wire.query_value("select pg_backend_pid()")?;
    wire.send_query("select repeat('x', 100000) from generate_series(1, 1000000)")?;
    wire.receive(1_000_000)?;
    killer.query_value(&format!("select pg_terminate_backend({process_id})"))?;
    let (_, closed) = wire.receive_until_quiet(LIMIT)?;
    ensure!(closed, "the client waits for ever");
    Ok(())
}
