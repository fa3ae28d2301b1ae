//! A keeper that is gone, or of no use, is replaced while the router serves.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs::keeper::store::DescriptorStore as _;
use pgs::keeper::store::Event;
use pgs::keeper::store::Farewell;
use pgs::keeper::store::Health;
use pgs::keeper::store::SlotDescriptors;
use pgs::keeper::store::StoreError;

use crate::Scenario;
use crate::ground::Ground;
use crate::ground::LIMIT;
use crate::ground::is_alive;
use crate::ground::slot;
use crate::stand_in::StandIn;
use crate::stand_in::global;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("a_killed_keeper_is_replaced", a_killed_keeper_is_replaced),
    (
        "a_keeper_that_takes_nothing_is_replaced",
        a_keeper_that_takes_nothing_is_replaced,
    ),
    (
        "a_keeper_of_another_router_is_replaced",
        a_keeper_of_another_router_is_replaced,
    ),
    (
        "a_keeper_that_lets_another_in_too_late_is_replaced",
        a_keeper_that_lets_another_in_too_late,
    ),
    ("where_there_can_be_no_keeper", where_there_can_be_no_keeper),
];

const WAIT: Duration = Duration::from_secs(20);

fn signal(process_id: u32, signal: Signal) -> anyhow::Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(process_id)?), signal)?)
}

fn replaced(events: &Receiver<Event>) -> anyhow::Result<()> {
    let lost = events.recv_timeout(LIMIT)?;
    ensure!(matches!(lost, Event::Lost(_)), "{lost:?}");
    let again = events.recv_timeout(LIMIT)?;
    ensure!(again == Event::Resupply, "{again:?}");
    Ok(())
}

fn a_killed_keeper_is_replaced() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (store, events) = ground.attach(false)?;
    let (_far, near) = UnixStream::pair()?;
    let session = SlotDescriptors::from_parts([Some(near.as_fd()), None, None]);
    store.put_global(&global("table")?, near.as_fd())?;
    store.put_slot(slot(1), &session)?;
    let first = ground.report()?.keeper;
    ensure!(store.process_id() == Some(first));
    signal(first, Signal::SIGKILL)?;
    replaced(&events)?;
    ensure!(!is_alive(first) && store.health() == Health::Working);
    let report = ground.report()?;
    ensure!(report.keeper != first && store.process_id() == Some(report.keeper));
    ensure!((report.globals, report.slots) == (1, 0), "{report:?}");
    store.put_slot(slot(1), &session)?;
    ground.until_slots(1)?;
    store.goodbye(Farewell::Ended)?;
    ground.until_gone(report.keeper)
}

fn a_keeper_that_takes_nothing_is_replaced() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (store, events) = ground.attach(false)?;
    let first = ground.report()?.keeper;
    signal(first, Signal::SIGSTOP)?;
    let (_far, near) = UnixStream::pair()?;
    let session = SlotDescriptors::from_parts([Some(near.as_fd()), None, None]);
    let mut longest = Duration::ZERO;
    let failed = (0..1_000).find_map(|number| {
        let begun = Instant::now();
        let done = store.put_slot(slot(number), &session);
        longest = longest.max(begun.elapsed());
        done.err()
    });
    ensure!(matches!(failed, Some(StoreError::Gone)), "{failed:?}");
    ensure!(longest < Duration::from_millis(500), "waited {longest:?}");
    replaced(&events)?;
    ensure!(!is_alive(first), "it still holds what it was given");
    store.put_slot(slot(1), &session)?;
    ground.until_slots(1)?;
    Ok(store.goodbye(Farewell::Ended)?)
}

/// One that this process did not start.
fn a_keeper_of_another_router_is_replaced() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (mut router, _sessions) = StandIn::start(&ground, 1)?;
    ground.until_slots(1)?;
    router.kill_group(Signal::SIGKILL)?;
    let (store, events) = ground.attach(false)?;
    let first = ground.report()?.keeper;
    signal(first, Signal::SIGKILL)?;
    replaced(&events)?;
    let second = ground.report()?.keeper;
    ensure!(second != first);
    store.goodbye(Farewell::Ended)?;
    ground.until_gone(second)
}

/// It stands still while one router leaves: that one goes on, and has to have a keeper.
fn a_keeper_that_lets_another_in_too_late() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (old, events) = ground.attach(false)?;
    let first = ground.report()?.keeper;
    let (_far, near) = UnixStream::pair()?;
    let session = SlotDescriptors::from_parts([Some(near.as_fd()), None, None]);
    std::thread::scope(|scope| {
        let next = scope.spawn(|| ground.attach(true));
        let asked = events.recv_timeout(LIMIT)?;
        ensure!(matches!(asked, Event::LetGo { .. }), "{asked:?}");
        signal(first, Signal::SIGSTOP)?;
        let left = old.goodbye(Farewell::HandingOver);
        ensure!(matches!(left, Err(StoreError::Gone)), "{left:?}");
        signal(first, Signal::SIGCONT)?;
        // Without the run directory's lock it gives up, with whatever keeper it has.
        if let Ok(Ok((next, _))) = next.join() {
            drop(next.goodbye(Farewell::Ended));
        }
        anyhow::Ok(())
    })?;
    replaced(&events)?;
    old.put_slot(slot(4), &session)?;
    ground.until_slots(1)?;
    ensure!(old.health() == Health::Working, "{:?}", old.health());
    Ok(old.goodbye(Farewell::Ended)?)
}

fn where_there_can_be_no_keeper() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    std::fs::create_dir(ground.run().join("keeper.sock"))?;
    match ground.attach(false) {
        Err(StoreError::NotBegun(why)) => ensure!(why.contains("keeper.sock"), "{why}"),
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}
