//! The moment when a session passes from the login to the data path, and turns of all sizes after.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "queries_sent_before_the_login_ended",
        queries_sent_before_the_login_ended,
    ),
    (
        "queries_that_arrive_at_every_moment",
        queries_that_arrive_at_every_moment,
    ),
    ("turns_of_all_sizes_in_one_session", turns_of_all_sizes),
    (
        "a_client_with_a_small_receive_buffer",
        a_client_with_a_small_receive_buffer,
    ),
];

fn query(sql: &str) -> Vec<u8> {
    packed(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

/// The values of all rows, in order.
fn values(messages: &[Message]) -> anyhow::Result<Vec<String>> {
    let rows = messages.iter().filter(|message| message.kind == b'D');
    let text = |row: &Message| Ok(String::from_utf8_lossy(row.columns()?[0]).into_owned());
    rows.map(text).collect()
}

/// Logs in with `tail` behind the password, and sends the rest in pieces.
fn log_in_and_send(stage: &Stage, tail: &[u8]) -> anyhow::Result<Wire> {
    let login = stage.alpha()?;
    let mut wire = stage.connect()?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", &login.user)]))?;
    let greeting = wire.authenticate_and_send(&login.password, tail)?;
    ensure!(greeting.refused().is_none(), "{greeting:?}");
    Ok(wire)
}

fn queries_sent_before_the_login_ended(stage: &Stage) -> anyhow::Result<()> {
    let (first, second) = (query("select 'first'"), query("select repeat('x', 500000)"));
    let all = [&first[..], &second].concat();
    // Nothing, a kind byte, half a header, half a query, one, one and a bit, both.
    for cut in [
        0,
        1,
        3,
        10,
        first.len(),
        first.len() + 1,
        first.len() + 9,
        all.len(),
    ] {
        let mut wire = log_in_and_send(stage, &all[..cut])?;
        wire.send(&all[cut..])?;
        let found = values(&wire.until_ready()?).with_context(|| format!("cut at {cut}"))?;
        ensure!(found == ["first"], "cut at {cut}: {found:?}");
        let found = values(&wire.until_ready()?).with_context(|| format!("cut at {cut}"))?;
        ensure!(found == ["x".repeat(500_000)], "cut at {cut}");
    }
    Ok(())
}

/// The handover takes some microseconds at a time that nobody knows: bytes arrive before it, in it
/// and after it.
fn queries_that_arrive_at_every_moment(stage: &Stage) -> anyhow::Result<()> {
    for step in 0..60 {
        let mut wire = log_in_and_send(stage, &[])?;
        let pause = Duration::from_micros(step * 10);
        let packet = query(&format!("select 'at {step}'"));
        for piece in packet.chunks(7) {
            wire.send(piece)?;
            thread::sleep(pause);
        }
        let found = values(&wire.until_ready()?).with_context(|| format!("{pause:?}"))?;
        ensure!(found == [format!("at {step}")], "{pause:?}: {found:?}");
    }
    Ok(())
}

fn turns_of_all_sizes(stage: &Stage) -> anyhow::Result<()> {
    let mut wire = stage.log_in(stage.alpha()?)?;
    for turn in 0_usize..400 {
        // Small ones mostly, as in life; a large one now and then, in either direction.
        let answer_bytes = if turn % 37 == 0 { 3_000_000 } else { turn };
        let query_bytes = if turn % 53 == 0 { 2_000_000 } else { turn };
        let padding = "p".repeat(query_bytes);
        let answered = wire.query(&format!(
            "select lpad('{turn}', 10 + {answer_bytes}, 'x') /* {padding} */"
        ))?;
        let found = values(&answered)?;
        let expected = format!(
            "{}{turn}",
            "x".repeat(10 + answer_bytes - turn.to_string().len())
        );
        ensure!(found == [expected], "turn {turn}");
    }
    Ok(())
}

/// The sender finds the client's window closed again and again, in the middle of everything.
fn a_client_with_a_small_receive_buffer(stage: &Stage) -> anyhow::Result<()> {
    const ROWS: usize = 2000;
    let mut wire = stage.connect()?;
    // Less than one segment on loopback; with much less, TCP itself all but stands still.
    wire.set_receive_buffer(32 * 1024)?;
    wire.log_in(stage.alpha()?)?;
    let answered = wire.query(&format!(
        "select lpad(i::text, 1000, 'x') from generate_series(1, {ROWS}) i"
    ))?;
    let found = values(&answered)?;
    ensure!(found.len() == ROWS, "{} rows", found.len());
    for (row, value) in (1..).zip(found) {
        ensure!(
            value.len() == 1000 && value.ends_with(&format!("x{row}")),
            "row {row}"
        );
    }
    Ok(())
}
