//! A session between two stand-ins, for the canaries.

use std::io;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use super::named;
use crate::config::limits::CANARY_DEADLINE;
use crate::config::limits::CANARY_POLL_INTERVAL;
use crate::datapath::kernel::Enrolment;
use crate::datapath::kernel::KernelAccess;
use crate::datapath::kernel::Refused;
use crate::datapath::kernel::Unreceived;

/// A session between two stand-ins.
pub(super) struct Stage {
    /// The stand-in for a backend, and the router's end.
    pub(super) backend: UnixStream,
    pub(super) router_backend: UnixStream,
    /// The router's end, and the stand-in for a client.
    pub(super) router_client: TcpStream,
    pub(super) client: TcpStream,
}

impl Stage {
    pub(super) fn set() -> Result<Self, String> {
        let (backend, router_backend) = UnixStream::pair().map_err(named("socketpair"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(named("bind"))?;
        let address = listener.local_addr().map_err(named("getsockname"))?;
        let client = TcpStream::connect(address).map_err(named("connect"))?;
        let (router_client, _) = listener.accept().map_err(named("accept"))?;
        router_client
            .set_nodelay(true)
            .map_err(named("TCP_NODELAY"))?;
        for (result, call) in [
            (router_backend.set_nonblocking(true), "fcntl"),
            (router_client.set_nonblocking(true), "fcntl"),
            (backend.set_nonblocking(true), "fcntl"),
            (
                client.set_read_timeout(Some(CANARY_DEADLINE)),
                "SO_RCVTIMEO",
            ),
        ] {
            result.map_err(named(call))?;
        }
        Ok(Self {
            backend,
            router_backend,
            router_client,
            client,
        })
    }

    pub(super) fn enrol(&self, kernel: &mut KernelAccess) -> Result<Enrolment, String> {
        kernel
            .enrol(&self.router_client, &self.router_backend, 0)
            .map_err(|refused| match refused {
                Refused::Contended => "bytes wait in a queue that nobody wrote to".into(),
                Refused::Failed(why) => why,
            })
    }

    /// The client's next bytes, as many as were expected.
    pub(super) fn expect(&mut self, expected: &[u8]) -> Result<(), String> {
        let mut received = vec![0; expected.len()];
        self.client
            .read_exact(&mut received)
            .map_err(named("recv by the client"))?;
        if received == expected {
            Ok(())
        } else {
            Err("other bytes than were sent".into())
        }
    }

    /// What the program diverted of the backend's bytes, as much as fits.
    pub(super) fn receive_diverted(
        &self,
        enrolment: &Enrolment,
        unreceived: Unreceived,
        into: &mut [u8],
    ) -> Result<usize, String> {
        let deadline = Instant::now() + CANARY_DEADLINE;
        loop {
            let received = match (unreceived, enrolment.aside()) {
                (Unreceived::Aside(_), Some(aside)) => aside.recv(into),
                _ => (&self.router_backend).read(into),
            };
            match received {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    std::thread::sleep(CANARY_POLL_INTERVAL);
                }
                other => return other.map_err(named("recv by the router")),
            }
        }
    }

    /// The backend's next bytes, as many as were expected.
    pub(super) fn expect_at_backend(&mut self, expected: &[u8]) -> Result<(), String> {
        let mut received = vec![0; expected.len()];
        self.backend
            .set_nonblocking(false)
            .map_err(named("fcntl"))?;
        self.backend
            .set_read_timeout(Some(CANARY_DEADLINE))
            .map_err(named("SO_RCVTIMEO"))?;
        self.backend
            .read_exact(&mut received)
            .map_err(named("recv by the backend"))?;
        if received == expected {
            Ok(())
        } else {
            Err("other bytes than were sent".into())
        }
    }

    /// The client's end, seen by the router.
    pub(super) fn expect_end(&mut self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            match self.router_client.read(&mut [0; 1]) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err("a byte where the end should be".into()),
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    std::thread::sleep(CANARY_POLL_INTERVAL);
                }
                Err(error) => return Err(named("recv by the router")(error)),
            }
        }
    }
}
