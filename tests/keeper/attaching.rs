//! There is one router at a time, and it can be another one.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs::keeper::link::ProcessStore;
use pgs::keeper::store::DescriptorStore as _;
use pgs::keeper::store::Event;
use pgs::keeper::store::Farewell;
use pgs::keeper::store::Health;
use pgs::keeper::store::SlotDescriptors;
use pgs::keeper::store::StoreError;
use pgs_tests::process::eventually;
use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

use crate::Scenario;
use crate::ground::Ground;
use crate::ground::LIMIT;
use crate::ground::slot;
use crate::stand_in::StandIn;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("a_second_router_is_refused", a_second_router_is_refused),
    (
        "a_router_hands_over_what_goes_by_itself",
        a_router_hands_over_what_goes_by_itself,
    ),
    (
        "a_router_that_ends_while_another_waits",
        a_router_that_ends_while_another_waits,
    ),
    ("nobody_hands_over_to_nobody", nobody_hands_over_to_nobody),
    (
        "a_router_that_dies_while_another_waits",
        a_router_that_dies_while_another_waits,
    ),
    (
        "nonsense_costs_the_connection_and_no_more",
        nonsense_costs_the_connection_and_no_more,
    ),
];

const WAIT: Duration = Duration::from_secs(20);

/// For what is to be answered at once.
const PROMPT: Duration = Duration::from_secs(1);

/// Leaves to whoever waits, or is about to.
pub(crate) fn hand_over(store: &ProcessStore) -> anyhow::Result<()> {
    eventually("another router waits", LIMIT, || {
        match store.goodbye(Farewell::HandingOver) {
            Ok(()) => Ok(Some(())),
            Err(StoreError::NobodyWaits) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
}

fn let_go(events: &Receiver<Event>) -> anyhow::Result<u32> {
    match events.recv_timeout(LIMIT)? {
        Event::LetGo { process_id } => Ok(process_id),
        other => anyhow::bail!("{other:?}"),
    }
}

/// What a router that takes over gets, once it is let in.
fn let_in<T>(next: ScopedJoinHandle<'_, Result<T, StoreError>>) -> anyhow::Result<T> {
    Ok(next.join().ok().context("a panic")??)
}

fn a_second_router_is_refused() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (router, _sessions) = StandIn::start(&ground, 1)?;
    match ground.attach(false) {
        Err(StoreError::Busy { process_id }) => ensure!(process_id == router.process_id()),
        other => anyhow::bail!("{other:?}"),
    }
    ensure!(ground.report()?.router == Some(router.process_id()));
    ground.until_slots(1)?;
    router.end()
}

fn a_router_hands_over_what_goes_by_itself() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (old, events) = ground.attach(false)?;
    let keeper = ground.report()?.keeper;
    let (_far, near) = UnixStream::pair()?;
    let session = SlotDescriptors::from_parts([Some(near.as_fd()), None, None]);
    for number in 0..4 {
        old.put_slot(slot(number), &session)?;
    }
    let next = std::thread::scope(|scope| {
        let next = scope.spawn(|| ground.attach(true));
        ensure!(let_go(&events)? == std::process::id());
        ensure!(!next.is_finished(), "there are two routers");
        // One more wants to take over.
        let third = ground.attach(true);
        ensure!(matches!(third, Err(StoreError::Busy { .. })), "{third:?}");
        // The old router goes on with these two itself.
        old.drop_slot(slot(1))?;
        old.drop_slot(slot(2))?;
        old.goodbye(Farewell::HandingOver)?;
        let_in(next)
    })?;
    let (next, _events) = next;
    let held = next.take_all();
    let numbers: Vec<_> = held.slots.iter().map(|(slot, _)| slot.number()).collect();
    ensure!(numbers == [0, 3], "{numbers:?}");
    ensure!(ground.report()?.keeper == keeper);
    // It is nobody's router any more.
    ensure!(matches!(
        old.put_slot(slot(9), &session),
        Err(StoreError::Gone)
    ));
    ensure!(matches!(old.health(), Health::Failing(_)));
    ground.until_slots(2)?;
    next.goodbye(Farewell::Ended)?;
    ground.until_gone(keeper)
}

/// It was to end, and its last session has ended while another router waits to take over.
fn a_router_that_ends_while_another_waits() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (old, events) = ground.attach(false)?;
    let keeper = ground.report()?.keeper;
    let next = std::thread::scope(|scope| {
        let next = scope.spawn(|| ground.attach(true));
        ensure!(let_go(&events)? == std::process::id());
        let begun = Instant::now();
        old.goodbye(Farewell::Ended)?;
        ensure!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
        let_in(next)
    })?;
    let (next, _events) = next;
    ensure!(next.take_all().slots.is_empty());
    drop(old);
    std::thread::sleep(crate::ground::QUIET);
    let report = ground.report()?;
    ensure!(report.keeper == keeper, "another keeper");
    ensure!(report.router == Some(std::process::id()));
    next.goodbye(Farewell::Ended)?;
    ground.until_gone(keeper)
}

fn nobody_hands_over_to_nobody() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (store, _events) = ground.attach(false)?;
    let (_far, near) = UnixStream::pair()?;
    let session = SlotDescriptors::from_parts([Some(near.as_fd()), None, None]);
    for number in 0..2 {
        let done = store.goodbye(Farewell::HandingOver);
        ensure!(matches!(done, Err(StoreError::NobodyWaits)), "{done:?}");
        store.put_slot(slot(number), &session)?;
        ground.until_slots(number + 1)?;
    }
    ensure!(store.health() == Health::Working);
    Ok(store.goodbye(Farewell::Ended)?)
}

fn a_router_that_dies_while_another_waits() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (mut router, _sessions) = StandIn::start(&ground, 2)?;
    ground.until_slots(2)?;
    std::thread::scope(|scope| {
        let next = scope.spawn(|| ground.attach(true));
        // This router does not listen to whoever wants to take over.
        std::thread::sleep(crate::ground::QUIET);
        ensure!(!next.is_finished(), "there are two routers");
        router.kill_group(nix::sys::signal::Signal::SIGKILL)?;
        let (next, _events) = next.join().ok().context("a panic")??;
        ensure!(next.take_all().slots.len() == 2);
        Ok(next.goodbye(Farewell::Ended)?)
    })
}

fn nonsense_costs_the_connection_and_no_more() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (store, events) = ground.attach(false)?;
    let path = SockAddr::unix(ground.run().join("keeper.sock"))?;
    for packet in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PGSK\x01\0\x07\0",
        &[0; 9_000],
    ] {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect(&path)?;
        socket.send(packet)?;
        let mut answer = [std::mem::MaybeUninit::uninit(); 16];
        ensure!(socket.recv(&mut answer)? == 0, "an answer to nonsense");
    }
    // Who is not the router cannot drop anything.
    let (_far, near) = UnixStream::pair()?;
    store.put_slot(
        slot(0),
        &SlotDescriptors::from_parts([Some(near.as_fd()), None, None]),
    )?;
    ground.until_slots(1)?;
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.connect(&path)?;
    let drop_slot_0 = [&b"PGSK\x01\0\x07\0\x01\0\0\0\0\0\0\0"[..], &[0; 4]].concat();
    socket.send(&drop_slot_0)?;
    std::thread::sleep(crate::ground::QUIET);
    ground.until_slots(1)?;
    ensure!(events.try_recv().is_err(), "the router noticed");
    Ok(store.goodbye(Farewell::Ended)?)
}
