//! CancelRequest: only the one who holds the key can cancel, and only what it belongs to.

use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use pgs_tests::driver;
use pgs_tests::login::BackendKey;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::PROTOCOL_3_2;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("the_own_key_ends_a_sleep", the_own_key_ends_a_sleep),
    ("the_driver_cancels", the_driver_cancels),
    ("a_wrong_key_does_nothing", a_wrong_key_does_nothing),
    (
        "a_key_of_another_tenant_does_nothing",
        a_key_of_another_tenant_does_nothing,
    ),
    (
        "a_key_does_nothing_after_its_session",
        a_key_does_nothing_after_its_session,
    ),
];

/// How soon a cancelled query ends.
const PROMPT: Duration = Duration::from_secs(1);

/// How long a query is watched that must not be cancelled.
const SLEEP: Duration = Duration::from_millis(800);

/// Sends it the way libpq does: on a connection of its own, until the server closes it.
fn send_cancel(stage: &Stage, key: &BackendKey) -> anyhow::Result<()> {
    let mut wire = stage.connect()?;
    wire.send(&key.cancel_request())?;
    let answer = wire.receive_to_end()?;
    ensure!(
        answer.is_empty(),
        "a CancelRequest was answered: {answer:?}"
    );
    Ok(())
}

fn session(stage: &Stage, version: u32, login: &Login) -> anyhow::Result<(Wire, BackendKey)> {
    let mut wire = stage.connect()?;
    let key = wire.log_in_with(version, login)?.key()?;
    Ok((wire, key))
}

fn the_own_key_ends_a_sleep(stage: &Stage) -> anyhow::Result<()> {
    for (version, length) in [(PROTOCOL_3_0, 4), (PROTOCOL_3_2, 32)] {
        let (mut wire, key) = session(stage, version, stage.alpha()?)?;
        ensure!(
            key.secret.len() == length,
            "a key of {} bytes",
            key.secret.len()
        );
        for _ in 0..3 {
            wire.send_query("select pg_sleep(60)")?;
            // The backend must have begun, or there is nothing to cancel.
            std::thread::sleep(Duration::from_millis(200));
            let sent = Instant::now();
            send_cancel(stage, &key)?;
            let answered = wire.until_ready()?;
            let states: Vec<_> = answered.iter().filter_map(Message::sqlstate).collect();
            ensure!(states == ["57014"], "{states:?}");
            ensure!(sent.elapsed() < PROMPT, "after {:?}", sent.elapsed());
            ensure!(wire.query_value("select 1")? == "1", "the session goes on");
        }
    }
    Ok(())
}

fn the_driver_cancels(stage: &Stage) -> anyhow::Result<()> {
    let (address, login) = (stage.router()?.address(), stage.alpha()?);
    driver::block_on(Duration::from_secs(20), async {
        let session = driver::connect(address, login).await?;
        let token = session.client.cancel_token();
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            token.cancel_query(tokio_postgres::NoTls).await
        };
        let started = Instant::now();
        let (slept, cancelled) =
            tokio::join!(session.client.execute("select pg_sleep(60)", &[]), cancel);
        cancelled?;
        let code = slept.err().and_then(|error| error.code().cloned());
        ensure!(
            code == Some(tokio_postgres::error::SqlState::QUERY_CANCELED),
            "{code:?}"
        );
        ensure!(
            started.elapsed() < PROMPT * 2,
            "after {:?}",
            started.elapsed()
        );
        Ok(())
    })
}

/// Has `key` cancelled while `wire` sleeps, and sees that the sleep goes on to its end.
fn is_not_cancelled(stage: &Stage, wire: &mut Wire, keys: &[BackendKey]) -> anyhow::Result<()> {
    wire.send_query(&format!("select pg_sleep({})", SLEEP.as_secs_f64()))?;
    std::thread::sleep(SLEEP / 4);
    for key in keys {
        send_cancel(stage, key)?;
    }
    let answered = wire.until_ready()?;
    let states: Vec<_> = answered.iter().filter_map(Message::sqlstate).collect();
    ensure!(
        states.is_empty(),
        "cancelled by a key that is not its own: {states:?}"
    );
    Ok(())
}

fn a_wrong_key_does_nothing(stage: &Stage) -> anyhow::Result<()> {
    for version in [PROTOCOL_3_0, PROTOCOL_3_2] {
        let (mut wire, key) = session(stage, version, stage.alpha()?)?;
        let mut flipped = key.clone();
        flipped.secret[0] ^= 1;
        let mut longer = key.clone();
        longer.secret.push(0);
        let short = BackendKey {
            secret: key.secret[..3].to_vec(),
            ..key.clone()
        };
        let long = BackendKey {
            secret: vec![7; 257],
            ..key
        };
        is_not_cancelled(stage, &mut wire, &[flipped, longer, short, long])?;
    }
    Ok(())
}

fn a_key_of_another_tenant_does_nothing(stage: &Stage) -> anyhow::Result<()> {
    let (mut in_alpha, key_alpha) = session(stage, PROTOCOL_3_0, stage.alpha()?)?;
    let (mut in_beta, key_beta) = session(stage, PROTOCOL_3_0, stage.beta()?)?;
    // The backends of two containers can have the same process id, so the key alone decides.
    let crossed = BackendKey {
        process_id: key_alpha.process_id,
        secret: key_beta.secret.clone(),
    };
    let other_way = BackendKey {
        process_id: key_beta.process_id,
        secret: key_alpha.secret,
    };
    is_not_cancelled(stage, &mut in_alpha, &[crossed, key_beta])?;
    is_not_cancelled(stage, &mut in_beta, &[other_way])
}

fn a_key_does_nothing_after_its_session(stage: &Stage) -> anyhow::Result<()> {
    let (wire, key) = session(stage, PROTOCOL_3_0, stage.alpha()?)?;
    drop(wire);
    let (mut next, _) = session(stage, PROTOCOL_3_0, stage.alpha()?)?;
    is_not_cancelled(stage, &mut next, &[key])
}
