//! Either side ends between any two steps of a handover, at a real worker on the running kernel:
//! the other side hears of it, and nothing of the session is left.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::arrivals_tests::Ends;
use super::arrivals_tests::LIMIT;
use super::arrivals_tests::NoLease;
use super::arrivals_tests::STEPS;
use super::arrivals_tests::adopted;
use super::arrivals_tests::bring_notices;
use super::arrivals_tests::expect;
use super::arrivals_tests::kernel;
use super::arrivals_tests::pattern;
use super::arrivals_tests::small_turns;
use super::arrivals_tests::wait_for_kernel;
use super::handover::CloseReason;
use super::handover::Lease;
use super::handover::SessionSockets;
use super::kernel::KernelAccess;
use super::kernel::KernelPath;
use super::kernel::Step;
use super::kernel::entries_of;
use super::reach::WorkerHandle;

/// The maps that have entries of a session.
const MAPS: [&str; 3] = ["INDEXES", "SOURCES", "SOCKETS"];

/// Tells when its session is over.
#[derive(Debug)]
pub(super) struct TellingLease(SyncSender<CloseReason>);

impl TellingLease {
    pub(super) fn new() -> (Box<Self>, Receiver<CloseReason>) {
        let (told, over) = sync_channel(1);
        (Box::new(Self(told)), over)
    }
}

impl Lease for TellingLease {
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

    fn closed(self: Box<Self>, reason: CloseReason) {
        // Whoever has seen enough does not wait for it.
        drop(self.0.send(reason));
    }
}

/// A worker and its notices, until it is dropped.
pub(super) struct Serving {
    pub(super) worker: WorkerHandle,
    done: Arc<AtomicBool>,
}

impl Serving {
    pub(super) fn begin(kernel: &KernelPath, access: KernelAccess) -> Self {
        let worker = WorkerHandle::start(0, Some(access)).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        bring_notices(kernel, &worker, &done);
        Self { worker, done }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        self.worker.end_all(CloseReason::Shutdown);
        self.worker.join();
    }
}

/// Waits until no map has an entry of a session, and no record is one's.
pub(super) fn until_nothing_is_left(kernel: &KernelPath) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left: Vec<_> = kernel
            .kept_maps()
            .into_iter()
            .filter_map(|(_, map)| entries_of(map.try_clone_to_owned().unwrap()).unwrap())
            .filter(|(name, count)| MAPS.contains(&&**name) && *count > 0)
            .collect();
        let taken = kernel.flows().taken().count();
        if left.is_empty() && taken == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{left:?}, {taken} places");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The far ends of a session, as long as they are open.
struct Far {
    client: Option<TcpStream>,
    backend: Option<UnixStream>,
}

/// How one side ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ClientSendsNoMore,
    ClientIsReset,
    BackendSendsNoMore,
    BackendCloses,
}

impl End {
    fn happens(self, far: &mut Far) {
        match self {
            Self::ClientSendsNoMore => {
                let client = far.client.as_mut().unwrap();
                client.write_all(b"question").unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            }
            Self::ClientIsReset => {
                let client = socket2::Socket::from(far.client.take().unwrap());
                client.set_linger(Some(Duration::ZERO)).unwrap();
            }
            Self::BackendSendsNoMore => {
                let backend = far.backend.as_ref().unwrap();
                backend.shutdown(Shutdown::Write).unwrap();
            }
            Self::BackendCloses => drop(far.backend.take()),
        }
    }

    /// What the other side sees of it, and what it still can do.
    fn is_heard(self, far: Far) {
        match self {
            Self::ClientSendsNoMore => {
                let (mut client, mut backend) = (far.client.unwrap(), far.backend.unwrap());
                expect(&mut backend, b"question");
                is_at_end(&mut backend);
                let answer = pattern(9, 10_000);
                backend.write_all(&answer).unwrap();
                drop(backend);
                expect(&mut client, &answer);
                is_at_end(&mut client);
            }
            Self::ClientIsReset => is_at_end(&mut far.backend.unwrap()),
            Self::BackendSendsNoMore => {
                let (mut client, mut backend) = (far.client.unwrap(), far.backend.unwrap());
                is_at_end(&mut client);
                client.write_all(b"unasked").unwrap();
                drop(client);
                expect(&mut backend, b"unasked");
                is_at_end(&mut backend);
            }
            Self::BackendCloses => is_at_end(&mut far.client.unwrap()),
        }
    }
}

fn is_at_end(socket: &mut impl Read) {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => assert_eq!(rest, b""),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn ends_at(kernel: &KernelPath, step: Step, end: End) {
    let Ends {
        client,
        router_client,
        backend,
        router_backend,
    } = Ends::new();
    let far = Arc::new(Mutex::new(Some(Far {
        client: Some(client),
        backend: Some(backend),
    })));
    let (ending, has_ended) = sync_channel(1);
    let acting = Arc::clone(&far);
    let mut access = kernel.access(0, 1).unwrap();
    access.between_steps = Some(RefCell::new(Box::new(move |now| {
        // The first time only: whoever waits has the ends then.
        if now == step
            && let Some(far) = acting.lock().unwrap().as_mut()
            && ending.try_send(()).is_ok()
        {
            end.happens(far);
        }
    })));
    let serving = Serving::begin(kernel, access);
    let (lease, over) = TellingLease::new();
    let meter = adopted(&serving.worker, router_client, router_backend, 0, lease);
    has_ended.recv_timeout(LIMIT).expect("it comes to the step");
    let far = far.lock().unwrap().take().unwrap();
    end.is_heard(far);
    let reason = over.recv_timeout(LIMIT).expect("the session ends");
    println!("{end:?} at {step:?}: {:?}, {reason}", meter.path());
    until_nothing_is_left(kernel);
}

fn ends_at_every_step(end: End) {
    let Some(kernel) = kernel() else { return };
    for step in STEPS {
        ends_at(&kernel, step, end);
    }
}

#[test]
fn a_client_that_sends_no_more_at_every_step_is_answered() {
    ends_at_every_step(End::ClientSendsNoMore);
}

#[test]
fn a_client_that_is_reset_at_every_step_frees_its_backend() {
    ends_at_every_step(End::ClientIsReset);
}

#[test]
fn a_backend_that_sends_no_more_at_every_step_can_still_read() {
    ends_at_every_step(End::BackendSendsNoMore);
}

#[test]
fn a_backend_that_closes_at_every_step_ends_the_session() {
    ends_at_every_step(End::BackendCloses);
}

/// An enrolled session whose backend has just called `shutdown` for reading.
fn whose_backend_reads_no_more(
    kernel: &KernelPath,
    serving: &Serving,
) -> (TcpStream, UnixStream, Receiver<CloseReason>) {
    let Ends {
        mut client,
        router_client,
        mut backend,
        router_backend,
    } = Ends::new();
    let (lease, over) = TellingLease::new();
    let meter = adopted(&serving.worker, router_client, router_backend, 0, lease);
    wait_for_kernel(&meter);
    small_turns(kernel, meter.place().unwrap(), &mut client, &mut backend);
    backend.shutdown(Shutdown::Read).unwrap();
    (client, backend, over)
}

/// No verdict sees what it sends then.
#[test]
fn a_backend_that_reads_no_more_is_heard_to_its_end() {
    let Some(kernel) = kernel() else { return };
    let serving = Serving::begin(&kernel, kernel.access(0, 1).unwrap());
    let (mut client, mut backend, over) = whose_backend_reads_no_more(&kernel, &serving);
    let answer = pattern(9, 100_000);
    backend.write_all(&answer).unwrap();
    drop(backend);
    expect(&mut client, &answer);
    is_at_end(&mut client);
    drop(client);
    over.recv_timeout(LIMIT).expect("the session ends");
    until_nothing_is_left(&kernel);
}

#[test]
fn a_client_that_asks_a_backend_that_reads_no_more_hears_the_end() {
    let Some(kernel) = kernel() else { return };
    let serving = Serving::begin(&kernel, kernel.access(0, 1).unwrap());
    let (mut client, mut backend, over) = whose_backend_reads_no_more(&kernel, &serving);
    client.write_all(b"question").unwrap();
    let reason = over.recv_timeout(LIMIT).expect("the session ends");
    assert!(matches!(reason, CloseReason::BackendFailed(_)), "{reason}");
    is_at_end(&mut client);
    let refused = backend.write(b"answer").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    until_nothing_is_left(&kernel);
}

/// More than the verdict redirects, and more than the sockets of a session and the router hold.
const UNREAD_BYTES: usize = 8 << 20;

/// Who was not taken anything from for so long waits for its client.
const STUCK: Duration = Duration::from_millis(50);

/// A backend that ends when it can send no more to a client that does not read. What it had sent by
/// then, and what its client got.
fn ends_unread(kernel: &KernelPath, end: impl FnOnce(UnixStream)) -> (Vec<u8>, Vec<u8>) {
    let Ends {
        mut client,
        router_client,
        mut backend,
        router_backend,
    } = Ends::new();
    let serving = Serving::begin(kernel, kernel.access(0, 1).unwrap());
    let lease = Box::new(NoLease);
    let meter = adopted(&serving.worker, router_client, router_backend, 0, lease);
    wait_for_kernel(&meter);
    small_turns(kernel, meter.place().unwrap(), &mut client, &mut backend);
    let bytes = pattern(4, UNREAD_BYTES);
    backend.set_write_timeout(Some(STUCK)).unwrap();
    let mut sent = 0;
    while let Ok(count) = backend.write(&bytes[sent..]) {
        sent += count;
    }
    assert!(sent < bytes.len(), "nothing makes it wait");
    end(backend);
    let mut received = Vec::new();
    // An end or a reset.
    drop(client.read_to_end(&mut received));
    (bytes[..sent].to_vec(), received)
}

#[test]
fn what_a_backend_sent_before_it_closes_arrives() {
    let Some(kernel) = kernel() else { return };
    let (sent, received) = ends_unread(&kernel, drop);
    assert!(received == sent, "{} of {}", received.len(), sent.len());
}

/// The kernel then drops what the router has not read. What comes behind that must not arrive.
#[test]
fn what_a_backend_sent_before_it_shuts_down_has_no_hole() {
    let Some(kernel) = kernel() else { return };
    for how in [Shutdown::Write, Shutdown::Both] {
        let (sent, received) = ends_unread(&kernel, |backend| {
            backend.shutdown(how).unwrap();
            // Open until its peer has ended as well.
            thread::spawn(move || is_at_end(&mut &backend));
        });
        assert!(sent.starts_with(&received), "{} bytes", received.len());
    }
}
