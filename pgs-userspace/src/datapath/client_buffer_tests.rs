//! Seen at the router's end of the client's connection, while a real worker has the session.

use std::io::Read as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SndBuf;

use super::*;
use crate::datapath::arrivals_tests::Ends;
use crate::datapath::arrivals_tests::LIMIT;
use crate::datapath::arrivals_tests::NoLease;
use crate::datapath::arrivals_tests::adopted;
use crate::datapath::arrivals_tests::hand_over_ends;
use crate::datapath::arrivals_tests::kernel;
use crate::datapath::handover::CloseReason;
use crate::datapath::kernel::Step;
use crate::datapath::reach::WorkerHandle;
use crate::datapath::withdrawal_tests::large_turns;
use crate::datapath::withdrawal_tests::question;

/// The kernel doubles what it is told.
fn is_bound(client: &TcpStream) -> bool {
    getsockopt(client, SndBuf).unwrap() == 2 * CLIENT_SEND_BUFFER_BYTES
}

fn until(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !happens() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Bound at first, free in a large turn, bound again when the verdict has it.
#[test]
fn a_client_that_reads_is_bound_only_while_the_verdict_counts_on_it() {
    let Some(kernel) = kernel() else { return };
    let ends = Ends::new();
    let near = ends.router_client.try_clone().unwrap();
    let watched = near.try_clone().unwrap();
    let withdrawn = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&withdrawn);
    let count = move |step, _: &mut _, _: &mut _| {
        counted.fetch_add(usize::from(step == Step::Withdrawn), Relaxed);
    };
    let mut handed = hand_over_ends(&kernel, ends, b"", Box::new(NoLease), count);
    handed.wait_for_kernel();
    until("not bound at first", || is_bound(&near));
    let watching = thread::spawn(move || until("never free", || !is_bound(&watched)));
    large_turns(&mut handed, 2, &withdrawn);
    watching.join().unwrap();
    question(&mut handed, &kernel);
    until("not bound again", || is_bound(&near));
}

/// It begins to read, so that its backend leaves the verdict, and then stops.
#[test]
fn a_client_that_stops_reading_stays_bound() {
    const BEGIN_BYTES: usize = 2 << 20;
    const ALL_BYTES: usize = 24 << 20;
    /// Of which one at least is to be what is meant; where others take the processors, the backend
    /// may not get ahead of the router in the first of them.
    const ROUNDS: usize = 10;
    const ROUNDS_MAX: usize = 50;
    let Some(kernel) = kernel() else { return };
    let mut meant = 0;
    for round in 0..ROUNDS_MAX {
        if round >= ROUNDS && meant > 0 {
            break;
        }
        let ends = Ends::new();
        let near = ends.router_client.try_clone().unwrap();
        let withdrawn = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&withdrawn);
        let count = move |step, _: &mut _, _: &mut _| {
            counted.fetch_add(usize::from(step == Step::Withdrawn), Relaxed);
        };
        let mut handed = hand_over_ends(&kernel, ends, b"", Box::new(NoLease), count);
        handed.wait_for_kernel();
        let mut backend = handed.backend.try_clone().unwrap();
        let sending = thread::spawn(move || drop(backend.write_all(&vec![0; ALL_BYTES])));
        // The backend gets ahead of the router.
        thread::sleep(Duration::from_millis(50));
        let mut begin = vec![0; BEGIN_BYTES];
        handed.client.read_exact(&mut begin).unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(is_bound(&near));
        meant += withdrawn.load(Relaxed);
        drop(handed);
        sending.join().unwrap();
    }
    assert!(meant > 0, "no backend left the verdict");
}

/// The relay writes to whom the kernel path has no place for.
#[test]
fn without_a_place_it_is_not_bound() {
    let Some(kernel) = kernel() else { return };
    let mut access = kernel.access(0, 1).unwrap();
    access.keep_places(0);
    let worker = WorkerHandle::start(0, Some(access)).unwrap();
    let ends = Ends::new();
    let near = ends.router_client.try_clone().unwrap();
    let meter = adopted(
        &worker,
        ends.router_client,
        ends.router_backend,
        0,
        Box::new(NoLease),
    );
    let stays = || meter.relay_reason().is_some();
    until("not refused", stays);
    until("still bound", || !is_bound(&near));
    worker.end_all(CloseReason::Shutdown);
    worker.join();
}

/// What was set once keeps TCP from choosing, unless that is taken back.
#[test]
fn tcp_chooses_again_for_one_that_is_free() {
    let Ends {
        mut client,
        mut router_client,
        ..
    } = Ends::new();
    router_client.set_nonblocking(false).unwrap();
    bind(&router_client).unwrap();
    assert!(is_bound(&router_client));
    free(&router_client).unwrap();
    let reading = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        client.read_to_end(&mut Vec::new()).unwrap()
    });
    router_client.write_all(&vec![0; 8 << 20]).unwrap();
    let chosen = getsockopt(&router_client, SndBuf).unwrap();
    drop(router_client);
    assert_eq!(reading.join().unwrap(), 8 << 20);
    assert!(chosen > 2 * CLIENT_SEND_BUFFER_START_BYTES, "{chosen}");
}
