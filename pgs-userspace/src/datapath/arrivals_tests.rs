//! Bytes that arrive between any two steps of a handover, at a real worker on the running kernel:
//! each of them goes on, once and in its place.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;

use super::direction::Direction;
use super::handover::CloseReason;
use super::handover::Handover;
use super::handover::Lease;
use super::handover::SessionSockets;
use super::kernel::KernelPath;
use super::kernel::Place;
use super::kernel::Step;
use super::kernel::Ways;
use super::meter::Meter;
use super::meter::Path;
use super::reach::WorkerHandle;

pub(super) const LIMIT: Duration = Duration::from_secs(10);
const SMALL_TURNS_MAX: usize = 2_000;
const POLL: Duration = Duration::from_micros(100);

pub(super) const STEPS: [Step; 10] = [
    Step::Read,
    Step::Records,
    Step::Indexes,
    Step::Targets,
    Step::BackendSource,
    Step::Silence,
    Step::ClientSource,
    Step::Judged,
    Step::Written,
    Step::Open,
];

#[derive(Debug)]
pub(super) struct NoLease;

impl Lease for NoLease {
    fn owner(&self) -> &str {
        "test"
    }

    fn goes_on_alone(&self, _place: u32, _sockets: SessionSockets<'_>) -> bool {
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

/// All four ends of a session's two connections. The far ones are given time, the router's own do
/// not block.
pub(super) struct Ends {
    pub(super) client: TcpStream,
    pub(super) router_client: TcpStream,
    pub(super) backend: UnixStream,
    pub(super) router_backend: UnixStream,
}

impl Ends {
    pub(super) fn new() -> Self {
        let (backend, router_backend) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (router_client, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        router_client.set_nonblocking(true).unwrap();
        router_backend.set_nonblocking(true).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        backend.set_read_timeout(Some(LIMIT)).unwrap();
        client.set_write_timeout(Some(LIMIT)).unwrap();
        backend.set_write_timeout(Some(LIMIT)).unwrap();
        Self {
            client,
            router_client,
            backend,
            router_backend,
        }
    }
}

/// The two far ends of a session that a worker has, and what else that takes.
pub(super) struct Handed {
    pub(super) client: TcpStream,
    pub(super) backend: UnixStream,
    meter: Arc<Meter>,
    pub(super) worker: WorkerHandle,
    pub(super) done: Arc<AtomicBool>,
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        self.worker.end_all(CloseReason::Shutdown);
        self.worker.join();
    }
}

/// Hands a session over whose client has sent `before` already, and has `arrives` called at each
/// step with the client's end and the backend's.
pub(super) fn hand_over(
    kernel: &KernelPath,
    before: &[u8],
    arrives: impl FnMut(Step, &mut TcpStream, &mut UnixStream) + Send + 'static,
) -> Handed {
    hand_over_on(kernel, before, Box::new(NoLease), arrives)
}

pub(super) fn hand_over_on(
    kernel: &KernelPath,
    before: &[u8],
    lease: Box<dyn Lease>,
    arrives: impl FnMut(Step, &mut TcpStream, &mut UnixStream) + Send + 'static,
) -> Handed {
    hand_over_ends(kernel, Ends::new(), before, lease, arrives)
}

pub(super) fn hand_over_ends(
    kernel: &KernelPath,
    ends: Ends,
    before: &[u8],
    lease: Box<dyn Lease>,
    mut arrives: impl FnMut(Step, &mut TcpStream, &mut UnixStream) + Send + 'static,
) -> Handed {
    let Ends {
        mut client,
        router_client,
        backend,
        router_backend,
    } = ends;
    client.write_all(before).unwrap();
    let mut access = kernel.access(0, 1).unwrap();
    let (mut at_client, mut at_backend) =
        (client.try_clone().unwrap(), backend.try_clone().unwrap());
    access.between_steps = Some(RefCell::new(Box::new(move |step| {
        arrives(step, &mut at_client, &mut at_backend);
    })));
    let worker = WorkerHandle::start(0, Some(access)).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    bring_notices(kernel, &worker, &done);
    let meter = adopted(&worker, router_client, router_backend, 0, lease);
    Handed {
        client,
        backend,
        meter,
        worker,
        done,
    }
}

/// Gives a worker the router's ends of a session.
pub(super) fn adopted(
    worker: &WorkerHandle,
    client: TcpStream,
    backend: UnixStream,
    account: u32,
    lease: Box<dyn Lease>,
) -> Arc<Meter> {
    let meter = Arc::new(Meter::new());
    let handover = Handover {
        client,
        backend,
        pending_to_backend: Bytes::new(),
        pending_to_client: Bytes::new(),
        account,
        relayed: None,
        meter: Arc::clone(&meter),
        lease,
    };
    assert!(worker.adopt(handover).is_ok());
    meter
}

pub(super) fn bring_notices(kernel: &KernelPath, worker: &WorkerHandle, done: &Arc<AtomicBool>) {
    let (reach, mut notices) = (worker.reach(), kernel.notices().unwrap());
    let done = Arc::clone(done);
    std::thread::spawn(move || {
        while !done.load(Relaxed) {
            notices.wait(Duration::from_millis(10)).unwrap();
            notices.read(|place| {
                reach.notice(place);
            });
        }
    });
}

impl Handed {
    pub(super) fn wait_for_kernel(&self) {
        wait_for_kernel(&self.meter);
    }

    pub(super) fn place(&self) -> Place {
        self.meter.place().expect("it is enrolled")
    }

    pub(super) fn small_turns(&mut self, kernel: &KernelPath) {
        small_turns(kernel, self.place(), &mut self.client, &mut self.backend);
    }
}

pub(super) fn wait_for_kernel(meter: &Meter) {
    let deadline = Instant::now() + LIMIT;
    while meter.path() != Path::Kernel {
        assert_eq!(meter.relay_reason(), None);
        assert!(Instant::now() < deadline, "it is not enrolled");
        std::thread::sleep(POLL);
    }
}

/// A question and an answer, until the kernel has both. Where the two sides share a processor with
/// the router, each may go on before the router has said that it has written.
pub(super) fn small_turns(
    kernel: &KernelPath,
    place: Place,
    client: &mut TcpStream,
    backend: &mut UnixStream,
) {
    let before = kernel.flows().bytes(place);
    for _ in 0..SMALL_TURNS_MAX {
        client.write_all(b"question").unwrap();
        expect(backend, b"question");
        backend.write_all(b"answer").unwrap();
        expect(client, b"answer");
        let after = kernel.flows().bytes(place);
        if after.to_backend > before.to_backend && after.to_client > before.to_client {
            return;
        }
    }
    let state = Direction::BOTH.map(|direction| kernel.flows().state(place, direction));
    panic!("small turns are not redirected: {state:?}");
}

pub(super) fn expect(from: &mut impl Read, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    from.read_exact(&mut received).unwrap();
    assert!(received == expected, "other bytes than were sent");
}

/// None where this user cannot load the program, or this kernel takes one direction only: it is
/// said.
pub(super) fn kernel() -> Option<KernelPath> {
    let why = match KernelPath::load() {
        Ok(kernel) if *kernel.ways() == Ways::Both => return Some(kernel),
        Ok(kernel) => format!("{:?}", kernel.ways()),
        Err(error) if nix::unistd::geteuid().is_root() => panic!("{error}"),
        Err(error) => format!("not root: {error}"),
    };
    println!("skipped: datapath::arrivals: {why}");
    None
}

/// Bytes in which every shift shows.
pub(super) fn pattern(seed: usize, length: usize) -> Vec<u8> {
    let byte = |at: usize| (at ^ (at >> 8).wrapping_mul(31) ^ seed) as u8;
    (0..length).map(byte).collect()
}

#[test]
fn what_a_client_sends_between_the_steps_keeps_its_place() {
    let Some(kernel) = kernel() else { return };
    for (before, arriving) in [(0, 1), (1, 1), (700, 5), (5, 40_000), (40_000, 40_000)] {
        for step in STEPS {
            let piece = pattern(2, arriving);
            let sent = piece.clone();
            let mut handed = hand_over(&kernel, &pattern(1, before), move |now, client, _| {
                if now == step {
                    client.write_all(&sent).unwrap();
                }
            });
            handed.wait_for_kernel();
            let all = [pattern(1, before), piece].concat();
            expect(&mut handed.backend, &all);
            handed.small_turns(&kernel);
        }
    }
}

#[test]
fn what_a_client_sends_at_every_step_keeps_its_order() {
    let Some(kernel) = kernel() else { return };
    for arriving in [1, 9, 4_000] {
        let mut handed = hand_over(&kernel, b"first", move |now, client, _| {
            if STEPS.contains(&now) {
                client.write_all(&pattern(now as usize, arriving)).unwrap();
            }
        });
        handed.wait_for_kernel();
        expect(&mut handed.backend, b"first");
        for step in STEPS {
            expect(&mut handed.backend, &pattern(step as usize, arriving));
        }
        handed.small_turns(&kernel);
    }
}

/// A server says nothing there by itself, only where its administrator acts on it. Then the session
/// may end; what arrives is in order all the same.
#[test]
fn what_a_backend_sends_between_the_steps_is_in_order_or_the_end() {
    let Some(kernel) = kernel() else { return };
    for arriving in [1, 3_000] {
        for step in STEPS {
            let piece = pattern(3, arriving);
            let sent = piece.clone();
            let mut handed = hand_over(&kernel, b"", move |now, _, backend| {
                if now == step {
                    backend.write_all(&sent).unwrap();
                }
            });
            let seen_late = !matches!(
                step,
                Step::Read | Step::Records | Step::Indexes | Step::Targets
            );
            if seen_late {
                handed.wait_for_kernel();
                expect(&mut handed.client, &piece);
                handed.small_turns(&kernel);
                continue;
            }
            let mut received = Vec::new();
            match handed.client.read_to_end(&mut received) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
            assert!(piece.starts_with(&received), "{step:?}");
        }
    }
}
