//! What the kernel may say no to: the session is then as it was, and the relay has it.

use std::cell::RefCell;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::*;
use crate::datapath::kernel::KernelPath;
use crate::datapath::unread::has_unread;

const LIMIT: Duration = Duration::from_secs(5);
const PIECE_BYTES: usize = 32 * 1024;
const PIECES_MAX: usize = 64;

/// A session between two stand-ins, all four ends.
struct Ends {
    backend: UnixStream,
    router_backend: UnixStream,
    router_client: TcpStream,
    client: TcpStream,
}

impl Ends {
    fn new() -> Self {
        let (backend, router_backend) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (router_client, _) = listener.accept().unwrap();
        Self {
            backend,
            router_backend,
            router_client,
            client,
        }
    }

    fn refused(&self, kernel: &mut KernelAccess) -> String {
        match kernel.enrol(&self.router_client, &self.router_backend, 0) {
            Err(Refused::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// As the relay does, both ways.
    fn is_relayed(&mut self) {
        let mut bytes = [0; 8];
        self.backend.write_all(b"result").unwrap();
        self.router_backend.read_exact(&mut bytes[..6]).unwrap();
        assert_eq!(&bytes[..6], b"result");
        self.router_client.write_all(&bytes[..6]).unwrap();
        self.client.read_exact(&mut bytes[..6]).unwrap();
        self.client.write_all(b"query").unwrap();
        self.router_client.read_exact(&mut bytes[..5]).unwrap();
        assert_eq!(&bytes[..5], b"query");
    }
}

/// None where this user cannot load the program, which is said.
fn kernel() -> Option<KernelPath> {
    match KernelPath::load() {
        Ok(kernel) => Some(kernel),
        Err(error) if nix::unistd::geteuid().is_root() => panic!("{error}"),
        Err(error) => {
            println!("skipped: datapath::kernel::enrol: not root: {error}");
            None
        }
    }
}

#[test]
fn sockets_that_another_program_has_stay_with_the_relay() {
    let (Some(other), Some(ours)) = (kernel(), kernel()) else {
        return;
    };
    let (mut other, mut ours) = (other.access(0, 1).unwrap(), ours.access(0, 1).unwrap());
    let mut ends = Ends::new();
    let theirs = other
        .enrol(&ends.router_client, &ends.router_backend, 0)
        .unwrap();
    // A program of somebody else's, which lets everything pass.
    for key in [theirs.cookies.peer, theirs.cookies.client] {
        other.indexes.remove(&key).unwrap();
    }
    let free = ours.free.len();
    let why = ends.refused(&mut ours);
    assert!(why.contains("SOURCES") && why.contains("busy"), "{why}");
    assert_eq!(ours.free.len(), free, "a place is lost");
    for (map, count) in [
        ("sources", ours.sources.keys().count()),
        ("sockets", ours.sockets.keys().count()),
        ("indexes", ours.indexes.keys().count()),
    ] {
        assert_eq!(count, 0, "{map}");
    }
    ends.is_relayed();
}

/// What it says has gone to the client already when the client's own socket is found taken.
#[test]
fn a_backend_that_spoke_during_an_enrolment_that_fails_has_no_relay_behind_a_hole() {
    let (Some(other), Some(ours)) = (kernel(), kernel()) else {
        return;
    };
    let (mut other, mut ours) = (other.access(0, 1).unwrap(), ours.access(0, 1).unwrap());
    for speaks in [true, false] {
        let ends = Ends::new();
        let key = socket::cookie(&ends.router_client).unwrap();
        let taken = other.sources.insert(key, ends.router_client.as_raw_fd(), 0);
        taken.unwrap();
        let mut backend = ends.backend.try_clone().unwrap();
        ours.between_steps = Some(RefCell::new(Box::new(move |now| {
            if speaks && now == Step::Silence {
                backend.write_all(b"unasked").unwrap();
            }
        })));
        let enrolled = ours.enrol(&ends.router_client, &ends.router_backend, 0);
        match (speaks, enrolled) {
            (true, Err(Refused::Contended)) => {}
            (false, Err(Refused::Failed(why))) => assert!(why.contains("SOURCES, the client")),
            other => panic!("{other:?}"),
        }
        assert_eq!(ours.sources.keys().count(), 0);
    }
}

#[test]
fn without_a_free_place_a_session_stays_with_the_relay() {
    let Some(kernel) = kernel() else { return };
    let mut access = kernel.access(0, 1).unwrap();
    access.free.clear();
    let mut ends = Ends::new();
    assert_eq!(ends.refused(&mut access), "no free place");
    ends.is_relayed();
}

fn until(what: &str, mut happens: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happens() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_was_diverted_is_seen_to_wait_and_an_end_is_not() {
    let Some(kernel) = kernel() else { return };
    let mut access = kernel.access(0, 1).unwrap();
    let mut ends = Ends::new();
    let enrolment = access
        .enrol(&ends.router_client, &ends.router_backend, 0)
        .unwrap();
    let aside = enrolment.aside().unwrap();
    let waits = |ends: &Ends| {
        [
            has_unread(&ends.router_client).unwrap(),
            has_unread(&ends.router_backend).unwrap(),
            has_unread(aside).unwrap(),
        ]
    };
    assert_eq!(waits(&ends), [false; 3]);
    // Not opened: all that the client sends is diverted.
    ends.client.write_all(b"query").unwrap();
    until("the query waits", || waits(&ends) == [true, false, false]);
    // One that is seen to wait nowhere has nowhere to go in the end.
    ends.backend.set_write_timeout(Some(LIMIT)).unwrap();
    let mut client = ends.client.try_clone().unwrap();
    thread::spawn(move || io::copy(&mut client, &mut io::sink()));
    // First by the source itself, then by the private socket.
    for expected in [[true, true, false], [true, true, true]] {
        for _ in 0..PIECES_MAX {
            if waits(&ends) == expected {
                break;
            }
            ends.backend.write_all(&[7; PIECE_BYTES]).unwrap();
        }
        assert_eq!(waits(&ends), expected);
    }
    let ended = Ends::new();
    access
        .enrol(&ended.router_client, &ended.router_backend, 0)
        .unwrap();
    ended.client.shutdown(Shutdown::Write).unwrap();
    ended.backend.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(waits(&ended)[..2], [false; 2]);
}
