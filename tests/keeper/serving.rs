//! The real `pgs serve`: killed, taken over, without a keeper. This process plays its tenant.

use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs::config::limits::LISTEN_ADDRESSES_MAX;
use pgs_tests::process::Finished;
use pgs_tests::process::eventually;
use pgs_tests::process::run;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::prlimit;

use crate::Scenario;
use crate::ground::LIMIT;
use crate::ground::QUIET;
use crate::ground::descriptors;
use crate::ground::is_alive;
use crate::manager::Manager;
use crate::stage::Serving;
use crate::stage::Stage;
use crate::stage::echoes;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "a_killed_router_keeps_the_port",
        a_killed_router_keeps_the_port,
    ),
    (
        "a_second_router_is_refused_with_the_way_out",
        a_second_router_is_refused,
    ),
    (
        "a_new_router_without_its_port_leaves_the_old_one_alone",
        a_new_router_without_its_port,
    ),
    (
        "a_new_router_takes_over_under_load",
        a_new_router_takes_over_under_load,
    ),
    (
        "a_session_goes_on_whatever_the_number_of_addresses",
        on_all_addresses,
    ),
    (
        "a_keeper_that_is_full_lets_the_next_router_in",
        a_keeper_that_is_full,
    ),
    (
        "a_router_that_ends_refuses_at_once",
        a_router_that_ends_refuses_at_once,
    ),
    (
        "a_unit_that_is_restarted_keeps_the_port",
        a_unit_that_is_restarted_keeps_the_port,
    ),
    ("a_router_without_a_keeper", a_router_without_a_keeper),
    (
        "a_router_whose_keeper_is_killed",
        a_router_whose_keeper_is_killed,
    ),
];

/// Ends it in order, and looks for what is left.
fn ends_and_leaves_nothing(stage: &Stage, mut router: Serving) -> anyhow::Result<()> {
    let keeper = stage.ground.report()?.keeper;
    router.signal(Signal::SIGTERM)?;
    router.until_ended()?;
    stage.ground.until_gone(keeper)?;
    for gone in ["admin.sock", "keeper.sock"] {
        ensure!(!stage.ground.run().join(gone).exists(), "{gone} stays");
    }
    Ok(())
}

fn a_killed_router_keeps_the_port() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve("first.log", &[])?;
    let keeper = stage.ground.report()?.keeper;
    let survival = stage.status()?["survival"].clone();
    ensure!(
        survival["kept_by"] == "keeper" && survival["process_id"] == keeper,
        "{survival}"
    );
    first.kill()?;
    ensure!(stage.ground.report()?.router.is_none());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| stage.session().and_then(|mut one| echoes(&mut one, b"1")));
        std::thread::sleep(QUIET);
        ensure!(!waiting.is_finished(), "nobody can have answered");
        let second = stage.serve("second.log", &[])?;
        waiting.join().ok().context("a panic")??;
        ensure!(stage.ground.report()?.keeper == keeper);
        ends_and_leaves_nothing(&stage, second)
    })
}

fn refused(outcome: &Finished, words: &[&str]) -> anyhow::Result<()> {
    ensure!(outcome.status.code() == Some(6), "{outcome:?}");
    for word in words {
        ensure!(outcome.stderr.contains(word), "no {word}: {outcome:?}");
    }
    Ok(())
}

fn a_second_router_is_refused() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve("first.log", &[])?;
    let second = run(&mut stage.serve_command(&[]), LIMIT)?;
    refused(
        &second,
        &["another `pgs serve` is running", "hint: `--take-over`"],
    )?;
    echoes(&mut stage.session()?, b"still here")?;
    ends_and_leaves_nothing(&stage, first)
}

/// One of its ports is somebody else's, which it finds out before the first one lets go.
fn a_new_router_without_its_port() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve("first.log", &[])?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let arguments = ["--take-over", "--listen", &address];
    let second = run(&mut stage.serve_command(&arguments), LIMIT)?;
    ensure!(!second.status.success(), "{second:?}");
    for word in [&address[..], "the address is in use"] {
        ensure!(second.stderr.contains(word), "no {word}: {second:?}");
    }
    let log = first.log();
    ensure!(!log.contains("another router takes over"), "{log}");
    echoes(&mut stage.session()?, b"still here")?;
    // And where it can have both, the new one and the kept one.
    drop(taken);
    let third = stage.serve("third.log", &arguments)?;
    drop(TcpStream::connect(&address)?);
    echoes(&mut stage.session()?, b"the next one")?;
    let mut first = first;
    first.until_ended()?;
    ends_and_leaves_nothing(&stage, third)
}

fn a_new_router_takes_over_under_load() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve("first.log", &[])?;
    let keeper = stage.ground.report()?.keeper;
    let mut session = stage.session()?;
    let done = AtomicBool::new(false);
    let (second, visits) = std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| visit_until(&stage, &done)))
            .collect();
        std::thread::sleep(QUIET);
        let second = stage.serve("second.log", &["--take-over"]);
        std::thread::sleep(QUIET);
        done.store(true, Relaxed);
        let mut visits = 0;
        for visitor in visitors {
            visits += visitor.join().ok().context("a panic")??;
        }
        anyhow::Ok((second?, visits))
    })?;
    ensure!(visits > 4, "{visits} visits are no load");
    ensure!(
        second
            .log()
            .contains("waiting for the other router to let go")
    );
    ensure!(stage.ground.report()?.router == Some(second.child.id()));
    ensure!(stage.ground.report()?.keeper == keeper);
    // The first router goes on with what it has, and ends with it.
    echoes(&mut session, b"still relayed")?;
    ensure!(is_alive(first.child.id()), "{}", first.log());
    drop(session);
    first.until_ended()?;
    echoes(&mut stage.session()?, b"the second router's")?;
    ensure!(stage.status()?["pid"] == second.child.id());
    ends_and_leaves_nothing(&stage, second)
}

/// Logs in again and again; how often. Every time has to succeed.
fn visit_until(stage: &Stage, done: &AtomicBool) -> anyhow::Result<usize> {
    let mut visits = 0;
    while !done.load(Relaxed) {
        echoes(&mut stage.session()?, b"a short visit")?;
        visits += 1;
    }
    Ok(visits)
}

fn a_router_that_ends_refuses_at_once() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let router = stage.serve("first.log", &[])?;
    let mut session = stage.session()?;
    let keeper = stage.ground.report()?.keeper;
    router.signal(Signal::SIGTERM)?;
    eventually("the port is closed", LIMIT, || {
        Ok(TcpStream::connect(stage.address).err().map(drop))
    })?;
    echoes(&mut session, b"it waits for this one")?;
    ensure!(stage.ground.report()?.globals == 0);
    drop(session);
    let mut router = router;
    router.until_ended()?;
    stage.ground.until_gone(keeper)
}

fn a_unit_that_is_restarted_keeps_the_port() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let manager = Manager::listen(&stage.ground)?;
    let mut unit = stage.serve_command(&[]);
    unit.env("NOTIFY_SOCKET", stage.ground.run().join("notify"));
    unit.env("FDSTORE", "100");
    let mut first = stage.serve_by(&mut unit, "first.log")?;
    ensure!(stage.status()?["survival"]["kept_by"] == "systemd");
    first.signal(Signal::SIGTERM)?;
    first.until_ended()?;
    ensure!(
        manager.names() == ["pgs.global.listener.0"],
        "{:?}",
        manager.names()
    );
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| stage.session().and_then(|mut one| echoes(&mut one, b"1")));
        std::thread::sleep(QUIET);
        ensure!(!waiting.is_finished(), "nobody can have answered");
        let (mut unit, passed) = manager.command(&unit)?;
        let mut second = stage.serve_by(&mut unit, "second.log")?;
        drop(passed);
        waiting.join().ok().context("a panic")??;
        ensure!(
            !stage.ground.run().join("keeper.sock").exists(),
            "a keeper beside it"
        );
        second.signal(Signal::SIGTERM)?;
        second.until_ended()
    })
}

fn a_router_without_a_keeper() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve("first.log", &["--keeper", "off"])?;
    ensure!(!stage.ground.run().join("keeper.sock").exists());
    ensure!(stage.status()?["survival"]["kept_by"] == "nothing");
    let second = run(&mut stage.serve_command(&["--take-over"]), LIMIT)?;
    refused(&second, &["has no keeper", "hint: "])?;
    echoes(&mut stage.session()?, b"still here")?;
    first.signal(Signal::SIGTERM)?;
    first.until_ended()
}

fn a_router_whose_keeper_is_killed() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve("first.log", &[])?;
    let mut session = stage.session()?;
    let keeper = stage.ground.report()?.keeper;
    kill(Pid::from_raw(i32::try_from(keeper)?), Signal::SIGKILL)?;
    eventually("there is a new keeper", LIMIT, || {
        let found = pgs::keeper::inquiry::inquire(stage.ground.run())?;
        Ok(found
            .filter(|new| new.keeper != keeper && new.globals == 1)
            .map(drop))
    })?;
    ensure!(
        first.log().contains("the keeper is gone"),
        "{}",
        first.log()
    );
    ensure!(stage.status()?["survival"]["reason"].is_null());
    echoes(&mut session, b"undisturbed")?;
    drop(session);
    // What the new keeper has is as good.
    first.kill()?;
    let second = stage.serve("second.log", &[])?;
    echoes(&mut stage.session()?, b"again")?;
    ends_and_leaves_nothing(&stage, second)
}

fn on_all_addresses() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let more = [["--listen", "127.0.0.1:0"]; LISTEN_ADDRESSES_MAX - 1].concat();
    let mut first = stage.serve_in_kernel("first.log", &more)?;
    let mut kept = stage.session()?;
    echoes(&mut kept, b"with the first one")?;
    stage.ground.until_slots(1)?;
    let before = stage.sessions()?;
    let arguments = [&more[..], &["--take-over"]].concat();
    let second = stage.serve_in_kernel("second.log", &arguments)?;
    first.until_ended()?;
    echoes(&mut kept, b"with the second one")?;
    let after = stage.sessions()?;
    ensure!(
        after.len() == 1 && after[0]["id"] == before[0]["id"],
        "{before:?}, then {after:?}"
    );
    drop(kept);
    ends_and_leaves_nothing(&stage, second)
}

/// It may have fewer open files than its router, as one that an earlier router has started.
fn a_keeper_that_is_full() -> anyhow::Result<()> {
    /// Of each session it has three, so that none would be left.
    const ROOM: u64 = 150;
    let stage = Stage::new()?;
    let first = stage.serve_in_kernel("first.log", &[])?;
    let keeper = stage.ground.report()?.keeper;
    // Those of the report's own connection are closed a moment later.
    std::thread::sleep(QUIET);
    let room = descriptors(keeper)? as u64 + ROOM;
    let limit = Rlimit {
        current: Some(room),
        maximum: Some(room),
    };
    let process = rustix::process::Pid::from_raw(keeper.cast_signed());
    prlimit(process, Resource::Nofile, limit)?;
    let mut sessions = Vec::new();
    for _ in 0..ROOM / 3 + 1 {
        let mut session = stage.session()?;
        echoes(&mut session, b"with the first one")?;
        sessions.push(session);
    }
    eventually("the keeper says so", LIMIT, || {
        let said = first.log().contains("the keeper takes no more");
        Ok(said.then_some(()))
    })?;
    first.kill()?;
    let second = stage.serve_in_kernel("second.log", &[])?;
    ensure!(stage.status()?["survival"]["kept_by"] == "keeper");
    echoes(&mut sessions[0], b"with the second one")?;
    drop(sessions);
    ends_and_leaves_nothing(&stage, second)
}
