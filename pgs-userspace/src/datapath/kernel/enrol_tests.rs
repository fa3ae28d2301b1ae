//! What the kernel may say no to: the session is then as it was, and the relay has it.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;

use super::*;
use crate::datapath::kernel::KernelPath;

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

#[test]
fn without_a_free_place_a_session_stays_with_the_relay() {
    let Some(kernel) = kernel() else { return };
    let mut access = kernel.access(0, 1).unwrap();
    access.free.clear();
    let mut ends = Ends::new();
    assert_eq!(ends.refused(&mut access), "no free place");
    ends.is_relayed();
}
