//! What a killed router leaves is the same that the next one finds.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs::keeper::store::DescriptorStore as _;
use pgs::keeper::store::Farewell;
use pgs::keeper::store::Held;
use pgs::keeper::store::SlotDescriptors;
use pgs::keeper::table::Entry;
use pgs::keeper::table::Record;
use pgs::keeper::table::SessionTable;
use pgs::keeper::table::Totals;
use pgs_tests::process::eventually;
use pgs_tests::skip::Skip;

use crate::Scenario;
use crate::ground::Ground;
use crate::ground::LIMIT;
use crate::ground::QUIET;
use crate::ground::Session;
use crate::ground::descriptors;
use crate::ground::ends;
use crate::ground::inode;
use crate::ground::is_alive;
use crate::ground::slot;
use crate::ground::travels;
use crate::stand_in::StandIn;
use crate::stand_in::global;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "a_killed_router_loses_nothing",
        a_killed_router_loses_nothing,
    ),
    (
        "signals_to_the_group_spare_the_keeper",
        signals_to_the_group_spare_the_keeper,
    ),
    (
        "new_connections_wait_for_the_next_router",
        new_connections_wait_for_the_next_router,
    ),
    ("what_is_dropped_is_closed", what_is_dropped_is_closed),
    ("a_burst_of_sessions_is_kept", a_burst_of_sessions_is_kept),
    ("the_table_is_kept", the_table_is_kept),
    (
        "an_orderly_end_leaves_nothing",
        an_orderly_end_leaves_nothing,
    ),
];

const WAIT: Duration = Duration::from_secs(20);

fn a_killed_router_loses_nothing() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    // More than fit into one message.
    let (mut router, mut sessions) = StandIn::start(&ground, 200)?;
    ground.until_slots(200)?;
    for session in &mut sessions {
        session.client.write_all(b"query")?;
    }
    router.kill_group(Signal::SIGKILL)?;
    let (store, _events) = ground.attach(false)?;
    let mut held = store.take_all();
    ensure!(store.take_all().slots.is_empty(), "given twice");
    ensure!(held.take_global("listener.0").is_some(), "no listener");
    are_the_same(held, &mut sessions)?;
    let keeper = ground.report()?.keeper;
    store.goodbye(Farewell::Ended)?;
    ground.until_gone(keeper)
}

/// Slot by slot the same sockets, through which what was sent before and since arrives.
pub(crate) fn are_the_same(held: Held, sessions: &mut [Session]) -> anyhow::Result<()> {
    ensure!(
        held.slots.len() == sessions.len(),
        "{} slots",
        held.slots.len()
    );
    for (slot, descriptors) in held.slots {
        let session = &mut sessions[slot.number() as usize];
        let SlotDescriptors {
            client,
            backend,
            aside,
        } = descriptors;
        let (client, backend) = (client.context("no client")?, backend.context("no backend")?);
        let aside = aside.context("no aside")?;
        let inodes = [inode(&client)?, inode(&backend)?, inode(&aside)?];
        ensure!(inodes == session.inodes, "{slot:?} has other sockets");
        let (mut client, mut backend) = (TcpStream::from(client), UnixStream::from(backend));
        let mut before = [0; 5];
        client.read_exact(&mut before)?;
        ensure!(&before == b"query");
        travels(&mut client, &mut session.client, b"result")?;
        travels(&mut backend, &mut session.backend, b"query")?;
        travels(&mut session.backend, &mut backend, b"result")?;
    }
    Ok(())
}

fn signals_to_the_group_spare_the_keeper() -> anyhow::Result<()> {
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        let ground = Ground::new(WAIT)?;
        let (mut router, _sessions) = StandIn::start(&ground, 1)?;
        ground.until_slots(1)?;
        let keeper = ground.report()?.keeper;
        router.kill_group(signal)?;
        let report = ground.report()?;
        ensure!(
            report.keeper == keeper && report.slots == 1,
            "{signal}: {report:?}"
        );
        let (store, _events) = ground.attach(false)?;
        store.goodbye(Farewell::Ended)?;
        ground.until_gone(keeper)?;
    }
    Ok(())
}

fn new_connections_wait_for_the_next_router() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (mut router, _sessions) = StandIn::start(&ground, 0)?;
    router.kill_group(Signal::SIGKILL)?;
    let mut client = TcpStream::connect(router.listening)?;
    client.write_all(b"hello")?;
    let (store, _events) = ground.attach(false)?;
    let listener = store.take_all().take_global("listener.0");
    let listener = TcpListener::from(listener.context("no listener")?);
    let (mut accepted, _) = listener.accept()?;
    let mut received = [0; 5];
    accepted.read_exact(&mut received)?;
    ensure!(&received == b"hello");
    Ok(store.goodbye(Farewell::Ended)?)
}

fn what_is_dropped_is_closed() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Skip::because("not root: nobody else can count a keeper's descriptors");
    }
    let ground = Ground::new(WAIT)?;
    let (store, _events) = ground.attach(false)?;
    let keeper = ground.report()?.keeper;
    // Standard input, output and error, the listening socket, the router's connection.
    let before = 5;
    until_descriptors(keeper, before)?;
    let (mut far, near) = UnixStream::pair()?;
    let near = OwnedFd::from(near);
    let session = SlotDescriptors::from_parts([Some(near.as_fd()), Some(near.as_fd()), None]);
    store.put_slot(slot(7), &session)?;
    store.put_slot(slot(8), &session)?;
    ground.until_slots(2)?;
    until_descriptors(keeper, before + 4)?;
    // In place of what was there.
    store.put_slot(
        slot(8),
        &SlotDescriptors::from_parts([Some(near.as_fd()), None, None]),
    )?;
    store.drop_slot(slot(7))?;
    ground.until_slots(1)?;
    until_descriptors(keeper, before + 1)?;
    drop(near);
    far.set_read_timeout(Some(QUIET))?;
    ensure!(far.read(&mut [0]).is_err(), "closed while it is kept");
    store.drop_slot(slot(8))?;
    far.set_read_timeout(Some(LIMIT))?;
    ends(&mut far)?;
    ground.until_slots(0)?;
    until_descriptors(keeper, before)?;
    store.goodbye(Farewell::Ended)?;
    ground.until_gone(keeper)
}

/// Whoever asks a keeper has a connection of its own for a moment.
fn until_descriptors(keeper: u32, expected: usize) -> anyhow::Result<()> {
    let what = format!("the keeper has {expected} descriptors");
    eventually(&what, LIMIT, || {
        Ok((descriptors(keeper)? == expected).then_some(()))
    })
}

/// More at once than the queue of a Unix socket takes.
fn a_burst_of_sessions_is_kept() -> anyhow::Result<()> {
    const BURST: u32 = 3_000;
    let ground = Ground::new(WAIT)?;
    let (store, events) = ground.attach(false)?;
    let (_far, near) = UnixStream::pair()?;
    let session = SlotDescriptors::from_parts([Some(near.as_fd()), None, None]);
    for number in 0..BURST {
        store.put_slot(slot(number), &session)?;
        if number % 3 == 0 {
            store.drop_slot(slot(number))?;
        }
    }
    ground.until_slots(BURST * 2 / 3)?;
    for number in 0..BURST {
        store.drop_slot(slot(number))?;
    }
    ground.until_slots(0)?;
    ensure!(events.try_recv().is_err(), "the keeper was replaced");
    Ok(store.goodbye(Farewell::Ended)?)
}

fn the_table_is_kept() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (store, _events) = ground.attach(false)?;
    let table = SessionTable::create()?;
    store.put_global(&global("table")?, table.descriptor())?;
    let record = Record {
        owner: None,
        session: 5,
        begun_microseconds: 6,
        backend_process_id: 7,
        path: 1,
        client: Some("[2001:db8::1]:5432".parse()?),
        cancel_key: vec![9; 256],
        tenant: "acme".into(),
        user: "acme".into(),
        database: "acme".into(),
    };
    // Written after it was put: it is the same memory.
    let totals = Totals {
        to_backend: 1,
        to_client: 2,
    };
    table.write(slot(3), &record, totals)?;
    let (next, _) = std::thread::scope(|scope| {
        let next = scope.spawn(|| ground.attach(true));
        crate::attaching::hand_over(&store)?;
        next.join()
            .ok()
            .context("a panic")?
            .map_err(anyhow::Error::from)
    })?;
    drop(table);
    let kept = next.take_all().take_global("table").context("no table")?;
    let kept = SessionTable::open(kept)?.context("another version")?;
    let entry = kept.read(slot(3))?;
    ensure!(
        entry == Entry::Session(Box::new(record), Some(totals)),
        "{entry:?}"
    );
    Ok(next.goodbye(Farewell::Ended)?)
}

fn an_orderly_end_leaves_nothing() -> anyhow::Result<()> {
    let ground = Ground::new(WAIT)?;
    let (router, mut sessions) = StandIn::start(&ground, 3)?;
    let keeper = ground.report()?.keeper;
    ensure!(ground.report()?.router == Some(router.process_id()));
    router.end()?;
    ensure!(
        !is_alive(keeper),
        "it is the router's child, which waits for it"
    );
    ground.until_gone(keeper)?;
    for session in &mut sessions {
        ends(&mut session.client)?;
        ends(&mut session.backend)?;
    }
    Ok(())
}
