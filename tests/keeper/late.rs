//! A client that the old router has accepted, and that says who it is when there is a new one.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use pgs_tests::login::Greeting;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process::eventually;
use pgs_tests::wire::Wire;
use serde_json::Value;

use crate::Scenario;
use crate::ground::LIMIT;
use crate::ground::QUIET;
use crate::handing_over::ends;
use crate::stage::SLOW;
use crate::stage::Stage;
use crate::stage::echoes;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[(
    "who_logs_in_at_the_old_router_is_known_to_the_new_one",
    who_logs_in_later,
)];

/// How soon a router knows what begins at the one before it: each of the two looks once a second.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// It has connected, and says who it is only when the other router serves.
fn who_logs_in_later() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve_in_kernel("first.log", &[])?;
    let connect = || -> anyhow::Result<Wire> {
        let mut wire = Wire::connect_tcp(stage.address)?;
        wire.set_read_limit(LIMIT)?;
        Ok(wire)
    };
    let acme = [("user", "acme"), ("database", "acme")];
    // Without one that stays the first router would end.
    let (mut stays, mut late) = (connect()?, connect()?);
    let slow = [&acme[..], &[("application_name", SLOW)]].concat();
    stays.send(&startup_packet(PROTOCOL_3_0, &slow))?;
    std::thread::sleep(QUIET);
    let mut second = stage.serve_in_kernel("second.log", &["--take-over"])?;
    let mut new = stage.session()?;
    late.send(&startup_packet(PROTOCOL_3_0, &acme))?;
    let greeting = late.until_ready().map(|messages| Greeting { messages })?;
    let owner = format!("process {}", first.child.id());
    eventually("it is listed", KNOWN_WITHIN, || {
        let sessions = stage.sessions()?;
        let elsewhere = sessions.iter().filter(|one| {
            let reason = one["path_reason"].as_str().unwrap_or_default();
            reason.contains(&owner)
        });
        // Without its key, too, it may be listed for a moment.
        let has_key = |one: &&Value| !one["backend_pid"].is_null();
        let known = elsewhere.clone().filter(has_key).count();
        Ok((elsewhere.count() == 2 && known >= 1 && sessions.len() == 3).then_some(()))
    })?;
    ensure!(stage.cancel(&greeting.key()?)?.len() == 1);
    for _ in 0..3 {
        echoes(&mut late, b"the first router's")?;
        echoes(&mut new, b"the second router's")?;
    }
    // The first router and the second have counted on from the same number.
    let third = stage.serve_in_kernel("third.log", &["--take-over"])?;
    second.until_ended()?;
    let listed = || -> anyhow::Result<BTreeSet<u64>> {
        let sessions = stage.sessions()?;
        Ok(sessions
            .iter()
            .filter_map(|one| one["id"].as_u64())
            .collect())
    };
    eventually("all are listed", KNOWN_WITHIN, || {
        Ok((listed()?.len() == 3).then_some(()))
    })?;
    drop(late);
    eventually("one has ended", KNOWN_WITHIN, || {
        Ok((listed()?.len() == 2).then_some(()))
    })?;
    echoes(&mut new, b"the third router's")?;
    stays.until_ready()?;
    drop((stays, new));
    first.until_ended()?;
    ends(third)
}
