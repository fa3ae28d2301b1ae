//! A place in the kernel's tables is another session's next: of what the former one had under way
//! nothing comes to the next, nor the other way round.
//!
//! Places are given out first in, first out, of thousands; so here there are one or two.

use std::collections::HashSet;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use super::arrivals_tests::Ends;
use super::arrivals_tests::LIMIT;
use super::arrivals_tests::adopted;
use super::arrivals_tests::expect;
use super::arrivals_tests::kernel;
use super::arrivals_tests::small_turns;
use super::arrivals_tests::wait_for_kernel;
use super::endings_tests::Serving;
use super::endings_tests::TellingLease;
use super::endings_tests::until_nothing_is_left;
use super::handover::CloseReason;
use super::kernel::KernelPath;
use super::kernel::Place;
use super::meter::Meter;
use super::reach::Meters;
use super::reach::WorkerHandle;

const SESSIONS: usize = 18;

/// By turns the sessions are of so many tenants.
const TENANTS: usize = 2;

/// More than the verdict redirects of one turn, so that the router has a part in it.
const TURN_BYTES: usize = 200_000;

/// More than the sockets of a session and the router hold: who sends it is at it when the session
/// ends. TCP alone may take 6 MiB to receive and 4 MiB to send (tcp(7)); under Linux 6.1 all of
/// 4 MiB was taken.
const FLOOD_BYTES: usize = 12 << 20;

/// Who was not taken anything from for so long gives up.
const STUCK: Duration = Duration::from_millis(50);

/// What is read of a flood before the session ends.
const READ_BYTES: usize = 40_000;

/// A session's number, and the word's.
const WORD_BYTES: usize = 8;

struct Live {
    number: usize,
    place: Place,
    client: TcpStream,
    backend: UnixStream,
    meter: Arc<Meter>,
    over: Receiver<CloseReason>,
}

impl Live {
    fn begin(number: usize, worker: &WorkerHandle) -> Self {
        let Ends {
            client,
            router_client,
            backend,
            router_backend,
        } = Ends::new();
        let (lease, over) = TellingLease::new();
        let account = 1 + (number % TENANTS) as u32;
        let meter = adopted(worker, router_client, router_backend, account, lease);
        wait_for_kernel(&meter);
        Self {
            number,
            place: meter.place().expect("it is enrolled"),
            client,
            backend,
            meter,
            over,
        }
    }

    /// In both directions, small ones and large ones.
    fn turns(&mut self, kernel: &KernelPath) {
        small_turns(kernel, self.place, &mut self.client, &mut self.backend);
        for bytes in [100, TURN_BYTES] {
            let sent = words(self.number, bytes);
            let writing = write(self.client.try_clone().unwrap(), sent.clone());
            expect(&mut self.backend, &sent);
            assert_eq!(writing.join().unwrap(), bytes);
            let writing = write(self.backend.try_clone().unwrap(), sent.clone());
            expect(&mut self.client, &sent);
            assert_eq!(writing.join().unwrap(), bytes);
        }
    }

    /// Both sides are in the middle of sending, and what they have sent is in the kernel and in the
    /// router's hand. Who is not at its end by then sends on when the place is another's.
    fn ends_in_floods(mut self, worker: &WorkerHandle) -> Vec<JoinHandle<usize>> {
        let (number, end) = (self.number, self.number % 3);
        let flood = words(number, FLOOD_BYTES);
        if end == 1 {
            self.backend.set_write_timeout(Some(STUCK)).unwrap();
        }
        let mut floods = vec![
            write(self.client.try_clone().unwrap(), flood.clone()),
            write(self.backend.try_clone().unwrap(), flood.clone()),
        ];
        expect(&mut self.client, &flood[..READ_BYTES]);
        expect(&mut self.backend, &flood[..READ_BYTES]);
        // What either side still gets is the other's, as far as it goes.
        let mut rest = Vec::new();
        match end {
            0 => self.client.shutdown(Shutdown::Both).unwrap(),
            1 => {}
            _ => {
                let meters = Arc::new([&self.meter].into_iter().collect::<Meters>());
                assert!(worker.reach().end(&meters, &CloseReason::Terminated));
            }
        }
        if end == 1 {
            // It gives up and closes, as a server does.
            let taken = floods.pop().unwrap().join().unwrap();
            assert!(taken < FLOOD_BYTES, "all of it was taken");
            drop(self.backend);
        } else {
            rest.push(read_rest(number, self.backend, flood.clone()));
        }
        rest.push(read_rest(number, self.client, flood));
        self.over.recv_timeout(LIMIT).expect("it ends");
        for reading in rest {
            reading.join().unwrap();
        }
        floods
    }
}

/// Up to its end or a reset, and then it ends too.
fn read_rest(number: usize, from: impl Into<socket2::Socket>, sent: Vec<u8>) -> JoinHandle<()> {
    let mut from: socket2::Socket = from.into();
    thread::spawn(move || {
        let mut received = Vec::new();
        drop(from.read_to_end(&mut received));
        drop(from.shutdown(Shutdown::Both));
        let local = from.local_addr();
        let same = received.iter().zip(&sent[READ_BYTES..]);
        let same = same.take_while(|(received, sent)| received == sent).count();
        assert!(
            same == received.len(),
            "session {number}, {local:?}: of {} bytes the first {same} are right; then {:?}",
            received.len(),
            &received[same..received.len().min(same + WORD_BYTES)]
        );
    })
}

/// Each of which says whose it is, and where it was.
fn words(number: usize, length: usize) -> Vec<u8> {
    let mut words = Vec::with_capacity(length + WORD_BYTES);
    let number = (number as u32).to_be_bytes();
    for at in 0..length.div_ceil(WORD_BYTES) as u32 {
        words.extend_from_slice(&number);
        words.extend_from_slice(&at.to_be_bytes());
    }
    words.truncate(length);
    words
}

/// Writes as much as is taken; how much that was.
fn write(mut to: impl Write + Send + 'static, bytes: Vec<u8>) -> JoinHandle<usize> {
    thread::spawn(move || {
        let mut taken = 0;
        while taken < bytes.len() {
            match to.write(&bytes[taken..]) {
                Ok(0) | Err(_) => break,
                Ok(count) => taken += count,
            }
        }
        taken
    })
}

/// So many places, all of them taken while a session ends and the next begins.
fn places_are_used_again(places: usize) {
    let Some(kernel) = kernel() else { return };
    let mut access = kernel.access(0, 1).unwrap();
    access.keep_places(places);
    let serving = Serving::begin(&kernel, access);
    let (mut live, mut used, mut floods) = (Vec::new(), HashSet::new(), Vec::new());
    for number in 0..SESSIONS {
        if live.len() == places {
            floods = Live::ends_in_floods(live.remove(0), &serving.worker);
        }
        live.push(Live::begin(number, &serving.worker));
        for session in &mut live {
            used.insert(session.place);
            session.turns(&kernel);
        }
        let taken: Vec<_> = floods
            .drain(..)
            .map(|flood| flood.join().unwrap())
            .collect();
        // Of a client whose backend has gone all may be taken, and thrown away.
        let cut = taken.iter().any(|bytes| *bytes < FLOOD_BYTES);
        assert!(cut || taken.len() < 2, "nothing was under way");
    }
    assert_eq!(used.len(), places);
    drop(live);
    until_nothing_is_left(&kernel);
}

#[test]
fn nothing_of_a_session_comes_to_the_next_one_in_its_place() {
    places_are_used_again(1);
}

#[test]
fn nothing_of_a_session_comes_to_those_beside_it() {
    places_are_used_again(2);
}

/// A session that finds no place.
fn finds_no_place(worker: &WorkerHandle) {
    let ends = Ends::new();
    let (lease, _over) = TellingLease::new();
    let meter = adopted(worker, ends.router_client, ends.router_backend, 0, lease);
    let deadline = Instant::now() + LIMIT;
    while meter.relay_reason() != Some("no free place") {
        assert_eq!(meter.place(), None, "it has one");
        assert!(Instant::now() < deadline, "it is not relayed");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_place_that_another_router_has_is_given_out_when_it_is_cleared_and_once() {
    let Some(kernel) = kernel() else { return };
    let mut access = kernel.access(0, 1).unwrap();
    access.keep_places(1);
    let serving = Serving::begin(&kernel, access);
    let reach = serving.worker.reach();
    // As at a take-over: the flows have ended, and the record in the table has not.
    let place = Place::from_number(0);
    assert!(reach.reserve(&Arc::new(HashSet::from([place.number()]))));
    finds_no_place(&serving.worker);
    assert!(reach.clear(place) && reach.clear(place));
    let mut live = Live::begin(0, &serving.worker);
    assert_eq!(live.place, place);
    // What is heard too late of the session before is not about this one.
    assert!(reach.clear(place));
    live.turns(&kernel);
    finds_no_place(&serving.worker);
    live.turns(&kernel);
}

#[test]
fn a_place_is_not_cleared_while_another_router_may_have_it() {
    let Some(kernel) = kernel() else { return };
    let mut access = kernel.access(0, 1).unwrap();
    access.keep_places(2);
    let serving = Serving::begin(&kernel, access);
    let reach = serving.worker.reach();
    let reserved = Place::from_number(1);
    assert!(reach.reserve(&Arc::new(HashSet::from([reserved.number()]))));
    let mut live = Live::begin(0, &serving.worker);
    let (done, released) = sync_channel(1);
    assert!(reach.release(done));
    released.recv_timeout(LIMIT).unwrap();
    assert!(reach.clear(live.place) && reach.clear(reserved));
    assert!(reach.take_back());
    live.turns(&kernel);
    let next = Live::begin(1, &serving.worker);
    assert_eq!(next.place, reserved);
}
