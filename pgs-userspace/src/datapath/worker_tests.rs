//! A worker that stands still while more is told to it than its queue holds, and one whose epoll
//! takes not every socket.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::datapath::handover::Lease;
use crate::datapath::handover::SessionSockets;
use crate::datapath::meter::Meter;
use crate::datapath::reach::WorkerReach;

const LIMIT: Duration = Duration::from_secs(10);
const SESSIONS: usize = 4;
const STANDS_STILL: Duration = Duration::from_millis(50);

/// A relayed session: its two far ends, and its meter.
struct Relayed {
    client: TcpStream,
    backend: UnixStream,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Told(Sender<CloseReason>);

impl Lease for Told {
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
        self.0.send(reason).unwrap();
    }
}

/// A session for a worker, told of its end, and the far ends.
fn session(closed: &Sender<CloseReason>) -> (Handover, Relayed) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (router_client, _) = listener.accept().unwrap();
    let (backend, router_backend) = UnixStream::pair().unwrap();
    router_client.set_nonblocking(true).unwrap();
    router_backend.set_nonblocking(true).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let meter = Arc::new(Meter::new());
    let handover = Handover {
        client: router_client,
        backend: router_backend,
        pending_to_backend: Bytes::new(),
        pending_to_client: Bytes::new(),
        account: 0,
        relayed: Some("test"),
        meter: Arc::clone(&meter),
        lease: Box::new(Told(closed.clone())),
    };
    let relayed = Relayed {
        client,
        backend,
        meter,
    };
    (handover, relayed)
}

fn sessions(worker: &mut Worker, closed: &Sender<CloseReason>) -> Vec<Relayed> {
    let given = (0..SESSIONS).map(|_| {
        let (handover, relayed) = session(closed);
        worker.adopt(handover);
        relayed
    });
    given.collect()
}

#[test]
fn a_notice_that_finds_the_queue_full_has_every_session_looked_at() {
    let (reach, inbox) = WorkerReach::new(1).unwrap();
    let mut worker = Worker::new(inbox, None).unwrap();
    let (closed, _reasons) = channel();
    let mut sessions = sessions(&mut worker, &closed);
    for session in &mut sessions {
        session.backend.write_all(b"answer").unwrap();
    }
    let nowhere = Place::from_number(7);
    assert!(reach.notice(nowhere));
    worker.take_commands();
    for session in &sessions {
        assert_eq!(session.meter.relayed_to_client(), 0, "looked at unasked");
    }
    // The second of these has no place in the queue.
    assert!(reach.notice(nowhere) && reach.notice(nowhere));
    worker.take_commands();
    for session in &mut sessions {
        let mut answer = [0; 6];
        session.client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    }
}

#[test]
fn sessions_are_ended_by_one_command_that_waits_for_its_place() {
    let (reach, inbox) = WorkerReach::new(1).unwrap();
    let mut worker = Worker::new(inbox, None).unwrap();
    let (closed, reasons) = channel();
    let sessions = sessions(&mut worker, &closed);
    // Full, and the worker stands still until the other thread has found it so.
    assert!(reach.notice(Place::from_number(7)));
    let meters: Meters = sessions[1..].iter().map(|session| &session.meter).collect();
    let ending = {
        let reach = reach.clone();
        std::thread::spawn(move || reach.end(&Arc::new(meters), &CloseReason::Terminated))
    };
    std::thread::sleep(STANDS_STILL);
    while !ending.is_finished() {
        worker.take_commands();
    }
    worker.take_commands();
    assert!(ending.join().unwrap());
    let ended: Vec<_> = reasons.try_iter().collect();
    assert_eq!(ended, vec![CloseReason::Terminated; SESSIONS - 1]);
}

#[test]
fn what_epoll_does_not_take_is_said_of_the_right_side() {
    let (_reach, inbox) = WorkerReach::new(1).unwrap();
    let mut worker = Worker::new(inbox, None).unwrap();
    let (closed, reasons) = channel();
    // What is registered already is refused.
    let there = || EpollEvent::new(EpollFlags::empty(), WAKE_TOKEN);
    let (handover, _far_ends) = session(&closed);
    worker.epoll.add(&handover.client, there()).unwrap();
    worker.adopt(handover);
    let why = "epoll_ctl: EEXIST: File exists".to_owned();
    let reason = reasons.try_recv();
    assert_eq!(reason, Ok(CloseReason::ClientFailed(why.clone())));
    let (handover, _far_ends) = session(&closed);
    worker.epoll.add(&handover.backend, there()).unwrap();
    worker.adopt(handover);
    assert_eq!(reasons.try_recv(), Ok(CloseReason::BackendFailed(why)));
}

#[test]
fn a_flood_of_commands_lets_events_and_alarms_have_their_turn() {
    let (reach, inbox) = WorkerReach::new(2 * WORKER_COMMANDS_AT_ONCE_MAX).unwrap();
    let mut worker = Worker::new(inbox, None).unwrap();
    let (closed, reasons) = channel();
    let sessions = sessions(&mut worker, &closed);
    for _ in 0..WORKER_COMMANDS_AT_ONCE_MAX {
        assert!(reach.notice(Place::from_number(7)));
    }
    let meters: Meters = sessions.iter().map(|session| &session.meter).collect();
    assert!(reach.end(&Arc::new(meters), &CloseReason::Terminated));
    worker.take_commands();
    assert_eq!(reasons.try_iter().count(), 0, "all were taken at once");
    let mut events = [EpollEvent::empty()];
    let woken = worker.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
    assert_eq!((woken, events[0].data()), (1, WAKE_TOKEN));
    worker.take_commands();
    assert_eq!(reasons.try_iter().count(), SESSIONS);
    let woken = worker.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
    assert_eq!(woken, 0, "it does not come to rest");
}
