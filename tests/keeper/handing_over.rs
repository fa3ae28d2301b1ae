//! The real `pgs serve` and its successors: what stays with which, and what becomes of sessions
//! where a successor is killed half-way.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs::keeper::store::DescriptorStore as _;
use pgs::keeper::store::Farewell;
use pgs_tests::login::Greeting;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process::eventually;
use pgs_tests::wire::Wire;
use rustix::process::Pid;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::prlimit;
use serde_json::Value;

use crate::Scenario;
use crate::ground::LIMIT;
use crate::ground::QUIET;
use crate::ground::descriptors;
use crate::stage::SLOW;
use crate::stage::Serving;
use crate::stage::Stage;
use crate::stage::echoes;
use crate::tables;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "what_stays_behind_is_still_in_hand",
        what_stays_behind_is_still_in_hand,
    ),
    (
        "a_login_that_stays_behind_is_never_in_the_others_tables",
        a_login_that_stays_behind,
    ),
    (
        "a_successor_that_is_killed_while_it_waits",
        a_successor_that_is_killed_while_it_waits,
    ),
    (
        "a_successor_that_is_killed_once_it_has_all",
        a_successor_that_is_killed_once_it_has_all,
    ),
    (
        "ended_sessions_leave_nothing_in_the_kernels_tables",
        ended_sessions_leave_nothing,
    ),
    (
        "what_the_keeper_has_no_room_for_stays_behind",
        what_the_keeper_has_no_room_for,
    ),
    (
        "a_relay_lets_go_of_what_only_the_kernel_path_serves",
        a_relay_lets_go,
    ),
];

/// As promised for `pgs disable`.
const PROMPT: Duration = Duration::from_secs(1);

pub(crate) fn listed(stage: &Stage, id: &Value) -> anyhow::Result<Option<Value>> {
    let sessions = stage.sessions()?;
    Ok(sessions.into_iter().find(|one| one["id"] == *id))
}

fn only(stage: &Stage) -> anyhow::Result<Value> {
    let sessions = stage.sessions()?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    Ok(sessions[0].clone())
}

pub(crate) fn ends(router: Serving) -> anyhow::Result<()> {
    let mut router = router;
    router.signal(Signal::SIGTERM)?;
    router.until_ended()
}

/// Relayed sessions stay with the router that has them. The next one lists them, counts them,
/// cancels in them, and ends them.
fn what_stays_behind_is_still_in_hand() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let bound = ["--sessions-max", "3"];
    let mut first = stage.serve("first.log", &bound)?;
    let (mut wire, key) = stage.session_with_key()?;
    let (mut second_wire, _) = stage.session_with_key()?;
    let before = stage.sessions()?;
    let second = stage.serve("second.log", &[&bound[..], &["--take-over"]].concat())?;

    echoes(&mut wire, b"relayed by the first one")?;
    let id = before[0]["id"].clone();
    let seen = listed(&stage, &id)?.context("it is not listed")?;
    for same in [
        "tenant",
        "user",
        "database",
        "client",
        "backend_pid",
        "path",
    ] {
        ensure!(
            seen[same] == before[0][same],
            "{seen} instead of {}",
            before[0]
        );
    }
    let reason = seen["path_reason"].as_str().unwrap_or_default();
    let owner = format!("process {}", first.child.id());
    ensure!(reason.contains(&owner), "{seen} instead of {owner}");
    let (sent, limit) = (
        before[0]["bytes_to_backend"].as_u64(),
        Duration::from_secs(3),
    );
    eventually("its bytes are counted", limit, || {
        let now = listed(&stage, &id)?.context("it is not listed")?;
        Ok((now["bytes_to_backend"].as_u64() > sent).then_some(()))
    })?;

    // One place is left of three.
    let third = stage.session()?;
    let refused = stage.session().err().map(|error| format!("{error:#}"));
    ensure!(refused.is_some(), "one session too many is let in");
    let asked = stage.cancel(&key)?;
    let wanted = [&key.process_id[..], &key.secret].concat();
    ensure!(asked == [wanted], "{asked:?}");

    drop(second_wire.send(b"last"));
    drop(second_wire);
    eventually("its end is known", PROMPT * 2, || {
        Ok((stage.sessions()?.len() == 2).then_some(()))
    })?;
    let begun = Instant::now();
    stage.ask("{\"request\":\"terminate\",\"tenant\":\"acme\"}")?;
    for mut wire in [wire, third] {
        wire.receive_to_end()?;
    }
    ensure!(begun.elapsed() < PROMPT, "after {:?}", begun.elapsed());
    first.until_ended()?;
    eventually("nothing is listed", PROMPT, || {
        Ok(stage.sessions()?.is_empty().then_some(()))
    })?;
    ends(second)
}

/// The kernel's tables are the next router's to give places in.
fn a_login_that_stays_behind() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve_in_kernel("first.log", &[])?;
    let mut late = Wire::connect_tcp(stage.address)?;
    late.set_read_limit(LIMIT)?;
    let parameters = [
        ("user", "acme"),
        ("database", "acme"),
        ("application_name", SLOW),
    ];
    late.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
    std::thread::sleep(QUIET);
    let second = stage.serve_in_kernel("second.log", &["--take-over"])?;
    let (mut new, _) = stage.session_with_key()?;
    echoes(&mut new, b"in the kernel")?;
    let key = late
        .until_ready()
        .map(|messages| Greeting { messages })?
        .key()?;
    for _ in 0..10 {
        echoes(&mut late, b"the first router's")?;
        echoes(&mut new, b"the second router's")?;
    }
    let owner = format!("process {}", first.child.id());
    eventually("both are listed", PROMPT * 2, || {
        let sessions = stage.sessions()?;
        let with = |path: &str, owned: bool| {
            let owned_by = |one: &&Value| {
                let reason = one["path_reason"].as_str().unwrap_or_default();
                one["path"] == path && reason.contains(&owner) == owned
            };
            sessions.iter().filter(owned_by).count()
        };
        Ok((with("relay", true) == 1 && with("kernel", false) == 1).then_some(()))
    })?;
    ensure!(stage.cancel(&key)?.len() == 1);
    drop((late, new));
    first.until_ended()?;
    ends(second)
}

/// Begins to take over and waits, because a client at the first router has said nothing yet.
fn begin_to_take_over(stage: &Stage, first: &Serving) -> anyhow::Result<(Serving, Wire)> {
    let silent = Wire::connect_tcp(stage.address)?;
    std::thread::sleep(QUIET);
    let mut command = stage.serve_command_in_kernel(&["--take-over"]);
    let second = stage.begin(&mut command, "waiting.log")?;
    eventually("the first one is asked to let go", LIMIT, || {
        Ok(first
            .log()
            .contains("another router takes over")
            .then_some(()))
    })?;
    Ok((second, silent))
}

fn a_successor_that_is_killed_while_it_waits() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve_in_kernel("first.log", &[])?;
    let (mut wire, key) = stage.session_with_key()?;
    echoes(&mut wire, b"before")?;
    let before = only(&stage)?;
    let (second, silent) = begin_to_take_over(&stage, &first)?;
    second.kill()?;
    eventually("the first one goes on", LIMIT, || {
        Ok(first.log().contains("going on").then_some(()))
    })?;
    drop(silent);
    // Everything is as it was: also what needs the router, and what is kept.
    let after = only(&stage)?;
    ensure!(
        after["id"] == before["id"] && after["path"] == "kernel",
        "{after}"
    );
    echoes(&mut wire, b"after")?;
    echoes(&mut wire, &vec![b'x'; 3_000])?;
    large_turn(&mut wire)?;
    ensure!(stage.cancel(&key)?.len() == 1);
    ensure!(stage.ground.report()?.slots == 1);
    echoes(&mut stage.session()?, b"a new one")?;
    // And the next one that comes takes over.
    let third = stage.serve_in_kernel("third.log", &["--take-over"])?;
    let after = listed(&stage, &before["id"])?.context("it is not listed")?;
    ensure!(
        after["path"] == "kernel" && after["path_reason"].is_null(),
        "{after}"
    );
    large_turn(&mut wire)?;
    drop(wire);
    let mut first = first;
    first.until_ended()?;
    ends(third)
}

/// More than the kernel takes in one turn: the router has its part in it.
pub(crate) fn large_turn(wire: &mut Wire) -> anyhow::Result<()> {
    let mut reader = wire.try_clone()?;
    let sent = vec![b'y'; 4_000_000];
    let expected = sent.len();
    let received = std::thread::scope(|scope| {
        let writer = scope.spawn(|| wire.send(&sent));
        let received = reader.receive(expected);
        writer.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        received
    })?;
    ensure!(received.iter().all(|byte| *byte == b'y'), "other bytes");
    Ok(())
}

fn a_successor_that_is_killed_once_it_has_all() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve_in_kernel("first.log", &[])?;
    let (mut wire, key) = stage.session_with_key()?;
    echoes(&mut wire, b"before")?;
    let before = only(&stage)?;
    let mut command = stage.serve_command_in_kernel(&["--take-over"]);
    let second = stage.begin(&mut command, "second.log")?;
    eventually("the first one lets go", LIMIT, || {
        Ok(first.log().contains("handed over").then_some(()))
    })?;
    second.kill()?;
    first.until_ended()?;
    echoes(&mut wire, b"without a router")?;
    let third = stage.serve_in_kernel("third.log", &[])?;
    let after = only(&stage)?;
    ensure!(after["id"] == before["id"], "{after}");
    ensure!(stage.cancel(&key)?.len() == 1);
    large_turn(&mut wire)?;
    drop(wire);
    eventually("nothing is kept of it", LIMIT, || {
        Ok((stage.ground.report()?.slots == 0).then_some(()))
    })?;
    ends(third)
}

/// Of one session that goes on there are its entries, and of those that have ended, none.
fn ended_sessions_leave_nothing() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve_in_kernel("first.log", &[])?;
    let keeper = stage.ground.report()?.keeper;
    let mut staying = stage.session()?;
    let mut ending = Vec::new();
    for _ in 0..3 {
        ending.push(stage.session()?);
    }
    for wire in &mut ending {
        echoes(wire, b"in the kernel")?;
    }
    ending.pop().context("there were three")?.reset()?;
    ending
        .pop()
        .context("there were three")?
        .shut_down_writing()?;
    drop(ending);
    eventually("they have ended", LIMIT, || {
        Ok((stage.sessions()?.len() == 1).then_some(()))
    })?;
    echoes(&mut staying, b"still there")?;
    stage.ground.until_slots(1)?;
    let (successor, _events) = stage.ground.attach(true)?;
    first.until_ended()?;
    let mut held = successor.take_all();
    ensure!(held.slots.len() == 1, "{:?}", held.slots);
    let mut entries = |map| tables::entries(&mut held, map);
    // A client and a backend are each a source; both and the private socket are targets.
    let found = [
        entries("indexes")?,
        entries("sources")?,
        entries("sockets")?,
    ];
    ensure!(found == [2, 2, 3], "{found:?}");
    echoes(&mut staying, b"without a router")?;
    successor.goodbye(Farewell::Ended)?;
    drop(held);
    stage.ground.until_gone(keeper)
}

/// A session that is in the kernel, and of whose sockets the keeper could take none.
fn what_the_keeper_has_no_room_for() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve_in_kernel("first.log", &[])?;
    let mut kept = stage.session()?;
    echoes(&mut kept, b"kept")?;
    stage.ground.until_slots(1)?;
    // Room for whoever takes over, and not for the three sockets of one more session.
    let keeper = stage.ground.report()?.keeper;
    // Those of the report's own connection are closed a moment later.
    std::thread::sleep(PROMPT);
    let room = descriptors(keeper)? as u64 + 2;
    let limit = Rlimit {
        current: Some(room),
        maximum: Some(room),
    };
    let process = Pid::from_raw(keeper.cast_signed());
    prlimit(process, Resource::Nofile, limit)?;
    let mut refused = stage.session()?;
    echoes(&mut refused, b"not kept")?;
    eventually("the keeper says so", LIMIT, || {
        Ok(first
            .log()
            .contains("the keeper takes no more")
            .then_some(()))
    })?;

    let second = stage.serve_in_kernel("second.log", &["--take-over"])?;
    echoes(&mut refused, b"with the first one")?;
    echoes(&mut kept, b"with the second one")?;
    let owner = format!("process {}", first.child.id());
    let reasons: Vec<_> = stage
        .sessions()?
        .iter()
        .map(|one| one["path_reason"].as_str().unwrap_or_default().to_owned())
        .collect();
    ensure!(
        reasons.len() == 2 && reasons[0].is_empty() && reasons[1].contains(&owner),
        "{reasons:?}"
    );
    drop((refused, kept));
    first.until_ended()?;
    ends(second)
}

fn a_relay_lets_go() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve_in_kernel("first.log", &[])?;
    let mut wire = stage.session()?;
    echoes(&mut wire, b"in the kernel")?;
    stage.ground.until_slots(1)?;
    first.kill()?;
    echoes(&mut wire, b"without a router")?;
    let second = stage.serve("second.log", &[])?;
    // Nobody can go on with it: it ends, and nothing of it is kept.
    let left = wire.receive_to_end().unwrap_or_default();
    ensure!(left.is_empty(), "{left:?}");
    stage.ground.until_slots(0)?;
    ensure!(stage.sessions()?.is_empty(), "it is listed");
    echoes(&mut stage.session()?, b"a new one")?;
    ends(second)
}
