//! A router that dies between any two steps of a backend's way out of the verdict and back: the
//! next one goes on from what stands in the maps.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::arrivals_tests::Handed;
use super::arrivals_tests::LIMIT;
use super::arrivals_tests::NoLease;
use super::arrivals_tests::bring_notices;
use super::arrivals_tests::expect;
use super::arrivals_tests::hand_over_on;
use super::arrivals_tests::kernel;
use super::arrivals_tests::pattern;
use super::handover::CloseReason;
use super::handover::Lease;
use super::handover::Orphan;
use super::handover::SessionSockets;
use super::kernel::KernelPath;
use super::kernel::Place;
use super::kernel::Step;
use super::meter::Meter;
use super::reach::WorkerHandle;
use super::withdrawal_tests::large_turns;
use super::withdrawal_tests::question;

/// Bytes of a turn of which the router moves a part.
const LARGE_TURN: usize = 150_000;

/// What a keeper holds of a session: its place, client, backend and private socket.
type Kept = Arc<Mutex<Option<(u32, [OwnedFd; 3])>>>;

#[derive(Debug)]
struct KeepingLease(Kept);

impl Lease for KeepingLease {
    fn owner(&self) -> &str {
        "test"
    }

    fn goes_on_alone(&self, place: u32, sockets: SessionSockets<'_>) -> bool {
        let SessionSockets {
            client,
            backend,
            aside,
        } = sockets;
        let copy = |socket: BorrowedFd<'_>| socket.try_clone_to_owned().unwrap();
        *self.0.lock().unwrap() = Some((place, [client, backend, aside].map(copy)));
        true
    }

    fn is_held(&self, _place: u32) -> bool {
        true
    }

    fn stays(&self, _place: u32) {}

    fn needs_this_process(&self, _place: u32) {}

    fn released(self: Box<Self>) {}

    fn closed(self: Box<Self>, _reason: CloseReason) {}
}

/// Another worker, which goes on with what is kept.
fn resume(kernel: &KernelPath, kept: &Kept, done: &Arc<AtomicBool>) -> WorkerHandle {
    let (place, [client, backend, aside]) = kept.lock().unwrap().take().expect("it was kept");
    let worker = WorkerHandle::start(0, Some(kernel.access(0, 1).unwrap())).unwrap();
    bring_notices(kernel, &worker, done);
    let meter = Arc::new(Meter::new());
    meter.begin_kernel(Place::from_number(place), kernel.flows());
    let orphan = Orphan {
        place,
        client: client.into(),
        backend: backend.into(),
        aside: aside.into(),
        meter,
        lease: Box::new(NoLease),
    };
    assert!(worker.reach().resume(orphan).is_ok());
    worker
}

/// A session whose worker dies when it has come to this step for the first time.
fn dies_at(kernel: &KernelPath, step: Step, kept: &Kept) -> (Handed, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let lease = Box::new(KeepingLease(Arc::clone(kept)));
    let handed = hand_over_on(kernel, b"", lease, move |now, _, _| {
        if now == step && counted.fetch_add(1, Relaxed) == 0 {
            panic!("the router dies at {now:?}, as it is to");
        }
    });
    handed.wait_for_kernel();
    (handed, count)
}

#[test]
fn a_router_that_dies_on_the_way_out_of_the_verdict_or_back_loses_nothing() {
    let Some(kernel) = kernel() else { return };
    let kernel = Arc::new(kernel);
    for step in [
        Step::Withdrawing,
        Step::Withdrawn,
        Step::Returning,
        Step::Returned,
    ] {
        let kept = Kept::default();
        let (mut handed, count) = dies_at(&kernel, step, &kept);
        let (died, next) = sync_channel(1);
        let (dead, old, of_kernel) = (
            Arc::clone(&count),
            Arc::clone(&handed.done),
            Arc::clone(&kernel),
        );
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let heir = thread::spawn(move || {
            while dead.load(Relaxed) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            // A client waits until there is a router again.
            old.store(true, Relaxed);
            thread::sleep(Duration::from_millis(30));
            died.send(resume(&of_kernel, &kept, &told)).unwrap();
        });
        large_turns(&mut handed, 5, &count);
        let worker = next.recv().unwrap();
        heir.join().unwrap();
        question(&mut handed, &kernel);
        done.store(true, Relaxed);
        worker.end_all(CloseReason::Shutdown);
        worker.join();
    }
}

#[test]
fn a_backend_that_has_left_the_verdict_is_left_to_the_next_router() {
    let Some(kernel) = kernel() else { return };
    let kept = Kept::default();
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let [withdrawn, returned] = counts.clone();
    let lease = Box::new(KeepingLease(Arc::clone(&kept)));
    let mut handed = hand_over_on(&kernel, b"", lease, move |now, _, _| {
        match now {
            Step::Withdrawn => withdrawn.fetch_add(1, Relaxed),
            Step::Returned => returned.fetch_add(1, Relaxed),
            _ => 0,
        };
    });
    handed.wait_for_kernel();
    let (released, at) = sync_channel(1);
    // It comes back when it has been silent for a moment: before that it is to be left.
    for _ in 0..200 {
        large_turns(&mut handed, 2, &counts[0]);
        handed.worker.reach().release(released.clone());
        at.recv().unwrap();
        if counts[1].load(Relaxed) < counts[0].load(Relaxed) {
            break;
        }
        handed.worker.reach().take_back();
    }
    assert!(counts[1].load(Relaxed) < counts[0].load(Relaxed));
    handed.done.store(true, Relaxed);
    handed.worker.reach().released();
    let done = Arc::new(AtomicBool::new(false));
    let worker = resume(&kernel, &kept, &done);
    question(&mut handed, &kernel);
    let mut client: TcpStream = handed.client.try_clone().unwrap();
    let reading = thread::spawn(move || expect(&mut client, &[7; 100_000]));
    handed.backend.write_all(&[7; 100_000]).unwrap();
    reading.join().unwrap();
    done.store(true, Relaxed);
    worker.end_all(CloseReason::Shutdown);
    worker.join();
}

#[test]
fn a_router_that_dies_before_it_has_let_go_leaves_a_session_that_ends() {
    let Some(kernel) = kernel() else { return };
    let (kept, armed, died) = (
        Kept::default(),
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let lease = Box::new(KeepingLease(Arc::clone(&kept)));
    let (is_armed, dead) = (Arc::clone(&armed), Arc::clone(&died));
    let mut handed = hand_over_on(&kernel, b"", lease, move |now, _, _| {
        if now == Step::Forwarded && is_armed.load(Relaxed) {
            dead.store(true, Relaxed);
            panic!("the router dies before it lets go, as it is to");
        }
    });
    handed.wait_for_kernel();
    armed.store(true, Relaxed);
    // More than the kernel moves by itself in one turn, and all of it is taken.
    handed.backend.write_all(&pattern(3, LARGE_TURN)).unwrap();
    let deadline = Instant::now() + LIMIT;
    while !died.load(Relaxed) {
        assert!(Instant::now() < deadline, "it does not come to that");
        thread::sleep(Duration::from_millis(1));
    }
    handed.done.store(true, Relaxed);
    let done = Arc::new(AtomicBool::new(false));
    let worker = resume(&kernel, &kept, &done);
    let mut received = Vec::new();
    handed.client.read_to_end(&mut received).unwrap();
    assert!(pattern(3, LARGE_TURN).starts_with(&received));
    done.store(true, Relaxed);
    worker.end_all(CloseReason::Shutdown);
    worker.join();
}

/// Of a session that could not be kept; told whether it stays.
#[derive(Debug)]
struct UnkeptLease(Arc<AtomicBool>);

impl Lease for UnkeptLease {
    fn owner(&self) -> &str {
        "test"
    }

    fn goes_on_alone(&self, _place: u32, _sockets: SessionSockets<'_>) -> bool {
        false
    }

    fn is_held(&self, _place: u32) -> bool {
        true
    }

    fn stays(&self, _place: u32) {
        self.0.store(true, Relaxed);
    }

    fn needs_this_process(&self, _place: u32) {}

    fn released(self: Box<Self>) {}

    fn closed(self: Box<Self>, _reason: CloseReason) {}
}

#[test]
fn a_session_that_could_not_be_kept_stays() {
    let Some(kernel) = kernel() else { return };
    let stays = Arc::new(AtomicBool::new(false));
    let lease = Box::new(UnkeptLease(Arc::clone(&stays)));
    let mut handed = hand_over_on(&kernel, b"", lease, |_, _, _| {});
    handed.wait_for_kernel();
    let (released, at) = sync_channel(1);
    handed.worker.reach().release(released);
    at.recv_timeout(LIMIT).unwrap();
    handed.worker.reach().released();
    handed.client.write_all(b"question").unwrap();
    expect(&mut handed.backend, b"question");
    assert!(stays.load(Relaxed), "nobody is told of it");
}
