//! What is left to an address that is beyond its bounds: to cancel what is its own, at its rate.

use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use pgs_tests::login::BackendKey;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::first_packet;
use pgs_tests::login::startup_packet;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use super::HERE;
use super::counter;
use super::ensure_state;

/// SSLRequest and GSSENCRequest.
const ENCRYPTION_REQUESTS: [u32; 2] = [(1234 << 16) + 5679, (1234 << 16) + 5680];

/// Connections of one address that are looked at, and for how long.
const LOOKS: usize = 8;
const LOOK: Duration = Duration::from_secs(1);

/// Whether a query is cancelled by this key, after these requests for encryption.
fn cancels(
    router: &Router,
    session: &mut Wire,
    key: &BackendKey,
    requests: &[u32],
) -> anyhow::Result<bool> {
    session.send_query("select pg_sleep(0.8)")?;
    std::thread::sleep(Duration::from_millis(200));
    let mut wire = Wire::connect_from(HERE, router.address())?;
    for request in requests {
        wire.send(&first_packet(*request, b""))?;
        ensure!(wire.receive(1)? == b"N", "not N");
    }
    wire.send(&key.cancel_request())?;
    ensure!(wire.receive_to_end()?.is_empty(), "an answer to a cancel");
    let answered = session.until_ready()?;
    let states: Vec<_> = answered.iter().filter_map(Message::sqlstate).collect();
    Ok(states == ["57014"])
}

fn turned_away(router: &Router, says: &[u8]) -> anyhow::Result<()> {
    let mut wire = Wire::connect_from(HERE, router.address())?;
    wire.send(says)?;
    ensure_state(&wire.message()?, "53300", "from this address")?;
    ensure!(wire.receive_to_end()?.is_empty(), "more behind the refusal");
    Ok(())
}

pub(super) fn cancels_go_on(stage: &Stage) -> anyhow::Result<()> {
    let configuration = "[limits]\n\
                         address_connection_rate_per_minute = 1\n\
                         address_connection_burst = 1\n\
                         address_cancel_rate_per_minute = 1\n\
                         address_cancel_burst = 3\n";
    let router = stage
        .installation()?
        .configured_router("beyond", configuration)?;
    let alpha = stage.alpha()?;
    let mut session = Wire::connect_from(HERE, router.address())?;
    let key = session.log_in(alpha)?.key()?;
    let packet = startup_packet(PROTOCOL_3_0, &[("user", &alpha.user)]);
    turned_away(&router, &packet)?;
    for requests in [&[][..], &[], &ENCRYPTION_REQUESTS] {
        let cancelled = cancels(&router, &mut session, &key, requests)?;
        ensure!(cancelled, "not cancelled after {requests:?}");
    }
    // Nothing was taken for them from the rate of connections, and nothing is put back.
    turned_away(&router, &packet)?;
    let cancelled = cancels(&router, &mut session, &key, &[])?;
    ensure!(!cancelled, "cancelled beyond the rate of cancels");
    ensure!(counter(&router, "cancels_limited")? == 1, "counted");

    // Who says nothing is told soon, and one of too many at once.
    let begun = Instant::now();
    let mut silent = (0..LOOKS)
        .map(|_| Wire::connect_from(HERE, router.address()))
        .collect::<Result<Vec<_>, _>>()?;
    let (said, ended) = silent[0].receive_until_quiet(LOOK / 4)?;
    ensure!(
        said.is_empty() && !ended,
        "told before it could say anything"
    );
    turned_away(&router, &[])?;
    ensure!(begun.elapsed() < LOOK, "one too many is looked at");
    for wire in &mut silent {
        ensure_state(&wire.message()?, "53300", "from this address")?;
    }
    let took = begun.elapsed();
    ensure!(took < 3 * LOOK, "told after {took:?}");
    Ok(())
}
