//! Sessions over TLS: every byte, every kind of end, cancelling.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::BackendKey;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::PROTOCOL_3_2;
use pgs_tests::login::startup_packet;
use pgs_tests::process::eventually;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;
use sha2::Digest as _;
use sha2::Sha256;

use super::Ground;
use super::TENANT;
use super::with_tls;

/// Large enough that every buffer on the way overflows.
const BULK_BYTES: usize = 8 * 1024 * 1024;

pub(super) fn every_byte_and_every_end(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        bulk(ground).context("bulk")?;
        a_client_that_does_not_wait(ground).context("pipelined")?;
        a_client_that_has_said_all(ground).context("half-close")?;
        a_client_that_terminates(ground).context("Terminate")?;
        a_client_that_vanishes(ground).context("reset")?;
        a_backend_that_ends(ground).context("the backend's end")
    })
}

fn bulk(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut wire = ground.log_in()?;
    let sessions = ground.router.sessions(TENANT)?;
    ensure!(
        sessions.len() == 1 && sessions[0]["path"] == "tls",
        "{sessions:?}"
    );
    let text: String = (0..BULK_BYTES)
        .map(|at| char::from(b'a' + (at * 7 % 26) as u8))
        .collect();
    let expected: String = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let sent = wire.query_value(&format!("select encode(sha256('{text}'), 'hex')"))?;
    ensure!(sent == expected, "what the server got is not what was sent");
    let sql = format!(
        "select string_agg(chr(97 + g * 7 % 26), '' order by g) \
                       from generate_series(0, {}) g",
        BULK_BYTES - 1
    );
    ensure!(
        wire.query_value(&sql)? == text,
        "what came is not what the server sent"
    );
    let counted = &ground.router.sessions(TENANT)?[0];
    for direction in ["bytes_to_backend", "bytes_to_client"] {
        let bytes = counted[direction].as_u64().unwrap_or(0);
        ensure!(bytes > BULK_BYTES as u64, "{direction}: {bytes}");
    }
    Ok(())
}

/// Sends its first query together with its proof, before it is let in.
fn a_client_that_does_not_wait(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut wire = ground.direct()?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", TENANT)]))?;
    let query = packed(b'Q', b"select 'at once'\0");
    let greeting = wire.authenticate_and_send(&ground.tenant.login().password, &query)?;
    ensure!(greeting.refused().is_none(), "{greeting:?}");
    let answer = wire.until_ready()?;
    let answered = |message: &Message| message.body.ends_with(b"at once");
    ensure!(answer.iter().any(answered), "{answer:?}");
    Ok(())
}

fn gone(ground: &Ground<'_>) -> anyhow::Result<()> {
    eventually("the session is gone", Duration::from_secs(5), || {
        Ok(ground.router.sessions(TENANT)?.is_empty().then_some(()))
    })
}

fn a_client_that_has_said_all(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut wire = ground.log_in()?;
    wire.send_query("select pg_sleep(3), 'the answer'")?;
    wire.shut_down_writing()?;
    let answer = wire.until_ready()?;
    let answered = |message: &Message| message.body.ends_with(b"the answer");
    ensure!(answer.iter().any(answered), "{answer:?}");
    // Without close_notify this would be an error.
    ensure!(wire.receive_to_end()?.is_empty());
    gone(ground)
}

fn a_client_that_terminates(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut wire = ground.log_in()?;
    wire.send_message(b'X', b"")?;
    ensure!(wire.receive_to_end()?.is_empty());
    gone(ground)
}

fn a_client_that_vanishes(ground: &Ground<'_>) -> anyhow::Result<()> {
    ground.log_in()?.reset()?;
    gone(ground)?;
    drop(ground.log_in()?);
    gone(ground)
}

fn a_backend_that_ends(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut wire = ground.log_in()?;
    let answer = ended(&mut wire, "select pg_terminate_backend(pg_backend_pid())")?;
    ensure!(answer == ["57P01"], "{answer:?}");
    gone(ground)
}

/// The SQLSTATEs of everything that comes up to an orderly end.
pub(super) fn ended(wire: &mut Wire, sql: &str) -> anyhow::Result<Vec<String>> {
    wire.send_query(sql)?;
    let mut states = Vec::new();
    while let Some(message) = wire.message_or_end()? {
        states.extend(message.sqlstate());
    }
    Ok(states)
}

pub(super) fn cancel(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        for version in [PROTOCOL_3_0, PROTOCOL_3_2] {
            let mut wire = ground.asked()?;
            let key = wire.log_in_with(version, ground.tenant.login())?.key()?;
            for begun in [Ground::asked, Ground::direct, Ground::connect] {
                let other = BackendKey {
                    process_id: key.process_id,
                    secret: vec![0x5a; key.secret.len()],
                };
                ensure!(
                    !is_cancelled(&mut wire, begun(ground)?, &other)?,
                    "by another key"
                );
                ensure!(
                    is_cancelled(&mut wire, begun(ground)?, &key)?,
                    "not cancelled"
                );
                ensure!(wire.query_value("select 1")? == "1");
            }
        }
        Ok(())
    })
}

fn is_cancelled(wire: &mut Wire, mut cancel: Wire, key: &BackendKey) -> anyhow::Result<bool> {
    wire.send_query("select pg_sleep(1)")?;
    std::thread::sleep(Duration::from_millis(200));
    let sent = Instant::now();
    cancel.send(&key.cancel_request())?;
    // Over TLS an end without close_notify would be an error.
    let answer = cancel.receive_to_end()?;
    ensure!(answer.is_empty(), "a CancelRequest was answered {answer:?}");
    ensure!(sent.elapsed() < Duration::from_secs(1));
    let states: Vec<_> = wire
        .until_ready()?
        .iter()
        .filter_map(Message::sqlstate)
        .collect();
    ensure!(states.is_empty() || states == ["57014"], "{states:?}");
    Ok(!states.is_empty())
}
