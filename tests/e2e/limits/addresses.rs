//! What one client address may do, whoever it asks for.

use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use pgs_tests::login::BackendKey;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use super::HERE;
use super::THERE;
use super::counter;
use super::ensure_state;
use super::log_in;

const LIMIT: Duration = Duration::from_secs(5);

/// `address_logins_max`, where nothing is configured.
const LOGINS: usize = 32;

/// What a client is told whoever it is.
fn turned_away(router: &Router) -> anyhow::Result<()> {
    let mut wire = Wire::connect_from(HERE, router.address())?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", "u")]))?;
    ensure_state(&wire.message()?, "53300", "from this address")?;
    ensure!(wire.receive_to_end()?.is_empty(), "more behind the refusal");
    Ok(())
}

pub(super) fn too_many_arrivals(stage: &Stage) -> anyhow::Result<()> {
    let configuration = "[limits]\naddress_arrivals_max = 5\n";
    let router = stage
        .installation()?
        .configured_router("arrivals", configuration)?;
    let alpha = stage.alpha()?;
    let mut session = log_in(&router, HERE, alpha)?;
    let silent: Vec<_> = (0..5)
        .map(|_| Wire::connect_from(HERE, router.address()))
        .collect::<Result<_, _>>()?;
    // They are taken in no order: one that comes later must not have one of their places.
    process::eventually("the silent ones are taken", Duration::from_secs(5), || {
        Ok((counter(&router, "connections_accepted")? >= 6).then_some(()))
    })?;
    for _ in 0..200 {
        turned_away(&router)?;
    }
    log_in(&router, THERE, alpha)?;
    ensure!(
        session.query_value("select 1")? == "1",
        "the session goes on"
    );
    ensure!(
        counter(&router, "refused_too_many_from_address")? == 200,
        "counted"
    );
    drop(silent);
    process::eventually("places are given back", Duration::from_secs(5), || {
        Ok(log_in(&router, HERE, alpha).ok())
    })?;
    Ok(())
}

/// Whoever has no password does not take a tenant's places by beginning logins.
pub(super) fn too_many_logins_under_way(stage: &Stage) -> anyhow::Result<()> {
    let configuration = "[limits]\naddress_arrivals_max = 5\n";
    let router = stage
        .installation()?
        .configured_router("logins", configuration)?;
    let alpha = stage.alpha()?;
    let packet = startup_packet(PROTOCOL_3_0, &[("user", &alpha.user)]);
    let begin = || -> anyhow::Result<Wire> {
        let mut wire = Wire::connect_from(HERE, router.address())?;
        wire.send(&packet)?;
        let asked = wire.message()?;
        ensure!(asked.kind == b'R', "not asked for a password: {asked:?}");
        Ok(wire)
    };
    let mut under_way = (0..5).map(|_| begin()).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..20 {
        turned_away(&router)?;
    }
    log_in(&router, THERE, alpha)?;
    drop(under_way.pop());
    // Logged in, it holds none of these places.
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let session = process::eventually("a place is given back", LIMIT, || {
            Ok(log_in(&router, HERE, alpha).ok())
        })?;
        sessions.push(session);
    }
    for session in &mut sessions {
        ensure!(session.query_value("select 1")? == "1");
    }
    Ok(())
}

/// Without any configuration: one address has its share of a tenant, and no more.
pub(super) fn logins_under_way_by_default(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.installation()?.second_router("places")?;
    let alpha = stage.alpha()?;
    let packet = startup_packet(PROTOCOL_3_0, &[("user", &alpha.user)]);
    let begin = || -> anyhow::Result<Wire> {
        let mut wire = Wire::connect_from(HERE, router.address())?;
        wire.send(&packet)?;
        Ok(wire)
    };
    let asked = |wire: &mut Wire| -> anyhow::Result<()> {
        let asked = wire.message()?;
        ensure!(asked.kind == b'R', "not asked for a password: {asked:?}");
        Ok(())
    };
    // Sessions hold none of these places.
    let mut session = log_in(&router, HERE, alpha)?;
    let mut under_way = (0..LOGINS)
        .map(|_| begin())
        .collect::<Result<Vec<_>, _>>()?;
    under_way.iter_mut().try_for_each(asked)?;
    let mut late = (0..20).map(|_| begin()).collect::<Result<Vec<_>, _>>()?;
    log_in(&router, THERE, alpha)?;
    log_in(&router, HERE, stage.beta()?)?;
    for wire in &mut late {
        ensure_state(&wire.message()?, "53300", "logins from this address")?;
    }
    let refused = counter(&router, "refused_too_many_logins_under_way")?;
    ensure!(refused == 20, "{refused} counted");
    let sessions = router.sessions(&alpha.user)?.len();
    ensure!(sessions <= LOGINS + 1, "{sessions} places taken");
    // Whoever waits gets the next one.
    let mut next = begin()?;
    drop(under_way.pop());
    asked(&mut next)?;
    ensure!(session.query_value("select 1")? == "1");
    Ok(())
}

pub(super) fn too_many_connections(stage: &Stage) -> anyhow::Result<()> {
    let configuration = "[limits]\n\
                         address_connection_rate_per_minute = 60\n\
                         address_connection_burst = 6\n";
    let router = stage
        .installation()?
        .configured_router("rate", configuration)?;
    let alpha = stage.alpha()?;
    let begin = Instant::now();
    let let_in = (0..12).filter(|_| log_in(&router, HERE, alpha).is_ok());
    let let_in = let_in.count() as u64;
    // One more for each second that the twelve took.
    let most = 6 + 1 + begin.elapsed().as_secs();
    ensure!((6..=most.min(11)).contains(&let_in), "{let_in} of 12");
    log_in(&router, THERE, alpha)?;
    // After a while one more has come back.
    std::thread::sleep(Duration::from_millis(1_100));
    log_in(&router, HERE, alpha)?;
    Ok(())
}

/// A request to cancel what is one's own is no connection too many; one that names nothing is.
pub(super) fn cancels_are_no_connections(stage: &Stage) -> anyhow::Result<()> {
    let configuration = "[limits]\n\
                         address_connection_rate_per_minute = 1\n\
                         address_connection_burst = 3\n";
    let router = stage
        .installation()?
        .configured_router("own-cancels", configuration)?;
    let alpha = stage.alpha()?;
    let cancel = |from, key: &BackendKey| -> anyhow::Result<()> {
        let mut wire = Wire::connect_from(from, router.address())?;
        wire.send(&key.cancel_request())?;
        ensure!(wire.receive_to_end()?.is_empty(), "an answer to a cancel");
        Ok(())
    };
    let mut session = Wire::connect_from(HERE, router.address())?;
    let key = session.log_in(alpha)?.key()?;
    for _ in 0..6 {
        session.send_query("select pg_sleep(5)")?;
        std::thread::sleep(Duration::from_millis(100));
        cancel(HERE, &key)?;
        let answered = session.until_ready()?;
        let states: Vec<_> = answered.iter().filter_map(Message::sqlstate).collect();
        ensure!(states == ["57014"], "not cancelled: {states:?}");
    }
    let _second = log_in(&router, HERE, alpha)?;
    let _third = log_in(&router, HERE, alpha)?;
    turned_away(&router)?;

    // Its own address pays for what names no session.
    let mut wrong = key;
    wrong.secret[0] ^= 1;
    for _ in 0..3 {
        cancel(THERE, &wrong)?;
    }
    let refused = log_in(&router, THERE, alpha);
    ensure!(refused.is_err(), "wrong keys cost nothing");
    Ok(())
}

pub(super) fn too_many_cancels(stage: &Stage) -> anyhow::Result<()> {
    let configuration = "[limits]\n\
                         address_cancel_rate_per_minute = 1\n\
                         address_cancel_burst = 2\n";
    let router = stage
        .installation()?
        .configured_router("cancels", configuration)?;
    let mut session = Wire::connect_from(THERE, router.address())?;
    let key = session.log_in(stage.alpha()?)?.key()?;
    let cancel = |from| -> anyhow::Result<()> {
        let mut wire = Wire::connect_from(from, router.address())?;
        wire.send(&key.cancel_request())?;
        ensure!(wire.receive_to_end()?.is_empty(), "an answer to a cancel");
        Ok(())
    };
    let mut states = |from| -> anyhow::Result<Vec<String>> {
        session.send_query("select pg_sleep(0.8)")?;
        std::thread::sleep(Duration::from_millis(200));
        cancel(from)?;
        let answered = session.until_ready()?;
        Ok(answered.iter().filter_map(Message::sqlstate).collect())
    };
    for _ in 0..2 {
        ensure!(states(HERE)? == ["57014"], "not cancelled");
    }
    ensure!(states(HERE)?.is_empty(), "cancelled beyond the rate");
    ensure!(states(THERE)? == ["57014"], "another address pays for it");
    ensure!(counter(&router, "cancels_limited")? == 1, "counted");
    Ok(())
}
