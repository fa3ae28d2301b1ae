//! Who has to wait for its turn to log in is let in, in the order of coming, or told why not.

use std::fs;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;

use super::HERE;
use super::THERE;
use super::counter;
use super::ensure_state;

const LIMIT: Duration = Duration::from_secs(5);

/// Places for arrivals, and as many for those that wait.
const ROOM: usize = 4;

/// Nothing comes within this.
const QUIET: Duration = Duration::from_millis(100);

fn begin(router: &Router, login: &Login) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_from(HERE, router.address())?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", &login.user)]))?;
    Ok(wire)
}

fn asked(wire: &mut Wire) -> anyhow::Result<()> {
    let asked = wire.message()?;
    ensure!(asked.kind == b'R', "not asked for a password: {asked:?}");
    Ok(())
}

pub(super) fn let_in_or_told(stage: &Stage) -> anyhow::Result<()> {
    let configuration = format!("[limits]\narrivals_max = {ROOM}\naddress_logins_max = 1\n");
    let router = stage
        .installation()?
        .configured_router("waiting", &configuration)?;
    let alpha = stage.alpha()?;
    let mut first = begin(&router, alpha)?;
    asked(&mut first)?;
    let mut waiting = Vec::new();
    for _ in 0..ROOM {
        let mut wire = begin(&router, alpha)?;
        // It is its turn to wait before the next one comes.
        let (said, ended) = wire.receive_until_quiet(QUIET)?;
        ensure!(said.is_empty() && !ended, "told {}", said.escape_ascii());
        waiting.push(wire);
    }
    let mut too_many = begin(&router, alpha)?;
    let begun = Instant::now();
    ensure_state(&too_many.message()?, "53300", "logins from this address")?;
    ensure!(begun.elapsed() < LIMIT, "told after {:?}", begun.elapsed());

    // Those that say nothing make room for each other, and who waits is none of them.
    let _silent = (0..2 * ROOM)
        .map(|_| Wire::connect_from(THERE, router.address()))
        .collect::<Result<Vec<_>, _>>()?;
    process::eventually("the silent ones make room", LIMIT, || {
        let crowded_out = counter(&router, "connections_crowded_out")?;
        Ok((crowded_out >= ROOM as u64).then_some(()))
    })?;

    let mut under_way = first;
    while !waiting.is_empty() {
        drop(under_way);
        under_way = waiting.remove(0);
        asked(&mut under_way)?;
        for wire in &mut waiting {
            let (said, ended) = wire.receive_until_quiet(QUIET)?;
            ensure!(said.is_empty() && !ended, "overtook the one before it");
        }
    }
    Ok(())
}

/// What it waits for its turn is not taken from its time to log in.
pub(super) fn not_blamed(stage: &Stage) -> anyhow::Result<()> {
    const DEADLINE: Duration = Duration::from_secs(2);
    let configuration = "[limits]\naddress_logins_max = 1\n";
    let installation = stage.installation()?;
    let router = installation.configured_router("patience", configuration)?;
    let alpha = stage.alpha()?;
    let mut first = begin(&router, alpha)?;
    asked(&mut first)?;
    // The first keeps the minute that it has.
    let configuration = format!("{configuration}[tenant_defaults]\nlogin_deadline = '2s'\n");
    fs::write(installation.scratch("patience.toml"), configuration)?;
    router.pgs(&["config", "reload"])?;

    let begun = Instant::now();
    let mut waits = begin(&router, alpha)?;
    ensure_state(&waits.message()?, "53300", "logins from this address")?;
    let took = begun.elapsed();
    ensure!(
        (DEADLINE..DEADLINE + LIMIT / 2).contains(&took),
        "told after {took:?}"
    );

    let begun = Instant::now();
    let mut next = Wire::connect_from(HERE, router.address())?;
    let parameters = [("user", &alpha.user[..]), ("database", &alpha.database)];
    next.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
    let (said, ended) = next.receive_until_quiet(DEADLINE * 3 / 4)?;
    ensure!(said.is_empty() && !ended, "told {}", said.escape_ascii());
    drop(first);
    next.peek()?;
    std::thread::sleep((DEADLINE + QUIET * 5).saturating_sub(begun.elapsed()));
    let refused = next.authenticate(&alpha.password)?.refused();
    ensure!(refused.is_none(), "{refused:?}");
    Ok(())
}
