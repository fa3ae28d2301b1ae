//! Start-up canaries: small experiments on private sockets that prove on *this* kernel what the
//! kernel path relies on. The kernel's version proves nothing.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;

use super::kernel::Enrolment;
use super::kernel::KernelAccess;
use super::kernel::KernelPath;
use super::kernel::Refused;
use crate::config::limits::CANARY_DEADLINE;
use crate::config::limits::CANARY_POLL_INTERVAL;
use crate::config::limits::CANARY_QUEUED_BYTES_MAX;
use crate::config::limits::CANARY_SOCKET_BUFFER_BYTES;
use crate::config::limits::CANARY_STALL;
use crate::config::limits::CANARY_STREAM_BYTES;

/// What one canary found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Short name.
    pub name: &'static str,
    /// Whether the kernel behaves as needed.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

/// A canary: what it saw, or what went wrong.
type Canary = fn(&mut KernelAccess) -> Result<String, String>;

/// In the order in which they are run; the first that fails decides.
const CANARIES: [(&str, Canary); 5] = [
    ("redirect", redirect),
    ("queued-before", queued_before),
    ("missing-target", missing_target),
    ("bounded-and-exact", bounded_and_exact),
    ("end-of-stream", end_of_stream),
];

/// Runs all canaries.
pub(super) fn run(kernel: &KernelPath) -> Vec<Finding> {
    let mut access = match kernel.access(0, 1) {
        Ok(access) => access,
        Err(error) => {
            return vec![Finding {
                name: "maps",
                passed: false,
                detail: error.to_string(),
            }];
        }
    };
    let begun = Instant::now();
    let findings: Vec<_> = CANARIES
        .into_iter()
        .map(|(name, canary)| {
            let seen = canary(&mut access);
            let (passed, detail) = match seen {
                Ok(detail) => (true, detail),
                Err(detail) => (false, detail),
            };
            tracing::debug!(name, passed, detail, "canary");
            Finding {
                name,
                passed,
                detail,
            }
        })
        .collect();
    tracing::debug!(milliseconds = begun.elapsed().as_millis(), "canaries done");
    findings
}

/// A session between two stand-ins.
struct Stage {
    /// The stand-in for a backend, and the router's end.
    backend: UnixStream,
    router_backend: UnixStream,
    /// The router's end, and the stand-in for a client.
    router_client: TcpStream,
    client: TcpStream,
}

impl Stage {
    fn set() -> Result<Self, String> {
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

    fn enrol(&self, kernel: &mut KernelAccess) -> Result<Enrolment, String> {
        kernel
            .enrol(&self.router_client, &self.router_backend)
            .map_err(|refused| match refused {
                Refused::Contended => "bytes wait in a queue that nobody wrote to".into(),
                Refused::Failed(why) => why,
            })
    }

    /// The client's next bytes, as many as were expected.
    fn expect(&mut self, expected: &[u8]) -> Result<(), String> {
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
}

/// What the backend sends reaches the client although the router reads nothing.
fn redirect(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    let enrolment = stage.enrol(kernel)?;
    for message in [&b"first"[..], b"second"] {
        stage.backend.write_all(message).map_err(named("send"))?;
        stage.expect(message)?;
    }
    let redirected = kernel.end(&enrolment);
    if redirected == 11 {
        Ok("11 of 11 bytes by the program".into())
    } else {
        Err(format!("{redirected} of 11 bytes by the program"))
    }
}

/// Bytes that were queued before the enrolment are noticed, and nothing of them is lost.
fn queued_before(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    stage.backend.write_all(b"early").map_err(named("send"))?;
    match kernel.enrol(&stage.router_client, &stage.router_backend) {
        Err(Refused::Contended) => {}
        Err(Refused::Failed(why)) => return Err(why),
        Ok(_) => return Err("queued bytes were overlooked".into()),
    }
    let mut early = [0; 16];
    let count = stage
        .router_backend
        .read(&mut early)
        .map_err(named("recv by the router"))?;
    stage
        .router_client
        .write_all(&early[..count])
        .map_err(named("send by the router"))?;
    let enrolment = stage.enrol(kernel)?;
    stage.backend.write_all(b"late").map_err(named("send"))?;
    stage.expect(b"earlylate")?;
    kernel.end(&enrolment);
    Ok("queued bytes are seen and keep their place".into())
}

/// Without a target the bytes come to the router instead of being dropped.
fn missing_target(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    let enrolment = stage.enrol(kernel)?;
    kernel.lose_target(&enrolment);
    stage.backend.write_all(b"astray").map_err(named("send"))?;
    let mut received = [0; 16];
    let count = stage
        .router_backend
        .read(&mut received)
        .map_err(named("recv by the router"))?;
    let unreceived = kernel.unreceived(&enrolment);
    kernel.end(&enrolment);
    match (&received[..count], unreceived) {
        (b"astray", 6) => Ok("passed to the router".into()),
        (other, counted) => Err(format!("{} bytes passed, {counted} counted", other.len())),
    }
}

/// With a client that does not read, the backend is made to wait; when it reads again, every byte
/// arrives once and in order.
fn bounded_and_exact(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    setsockopt(
        &stage.router_client,
        sockopt::SndBuf,
        &CANARY_SOCKET_BUFFER_BYTES,
    )
    .map_err(named("SO_SNDBUF"))?;
    setsockopt(&stage.client, sockopt::RcvBuf, &CANARY_SOCKET_BUFFER_BYTES)
        .map_err(named("SO_RCVBUF"))?;
    let enrolment = stage.enrol(kernel)?;
    let sent: Vec<u8> = (0..CANARY_STREAM_BYTES).map(pattern).collect();
    let queued = fill(&mut stage.backend, &sent)?;
    if queued > CANARY_QUEUED_BYTES_MAX {
        return Err(format!(
            "{queued} bytes were taken for a client that reads nothing"
        ));
    }
    // The kernel tries again every jiffy while the client does not read.
    std::thread::sleep(CANARY_STALL);
    let deadline = Instant::now() + CANARY_DEADLINE;
    let (mut written, mut received) = (queued, Vec::with_capacity(sent.len()));
    let mut buffer = [0; 16 * 1024];
    while received.len() < sent.len() {
        if written < sent.len() {
            written += fill(&mut stage.backend, &sent[written..])?;
        }
        let count = stage
            .client
            .read(&mut buffer)
            .map_err(named("recv by the client"))?;
        received.extend_from_slice(&buffer[..count]);
        if count == 0 || Instant::now() > deadline {
            return Err(format!(
                "{} of {} bytes arrived",
                received.len(),
                sent.len()
            ));
        }
    }
    kernel.end(&enrolment);
    if received == sent {
        Ok(format!(
            "the backend waited after {queued} bytes; {} arrived in order",
            sent.len()
        ))
    } else {
        Err("bytes were lost, doubled or reordered".into())
    }
}

/// After the backend closes, the flow is found drained, and the client's connection is unharmed.
fn end_of_stream(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    let enrolment = stage.enrol(kernel)?;
    stage
        .backend
        .write_all(b"last words")
        .map_err(named("send"))?;
    drop(std::mem::replace(
        &mut stage.backend,
        UnixStream::pair().map_err(named("socketpair"))?.0,
    ));
    let deadline = Instant::now() + CANARY_DEADLINE;
    while !kernel
        .is_drained(&enrolment, &stage.router_client)
        .map_err(named("TCP_INFO"))?
    {
        if Instant::now() > deadline {
            return Err("the flow is never found drained".into());
        }
        std::thread::sleep(CANARY_POLL_INTERVAL);
    }
    kernel.end(&enrolment);
    stage
        .router_client
        .write_all(b"!")
        .map_err(named("send by the router"))?;
    drop(stage.router_client);
    let mut received = Vec::new();
    stage
        .client
        .read_to_end(&mut received)
        .map_err(named("recv by the client"))?;
    if received == b"last words!" {
        Ok("drained, then closed in order".into())
    } else {
        Err(format!("{} of 11 bytes arrived", received.len()))
    }
}

/// A sequence in which every shift shows.
fn pattern(index: usize) -> u8 {
    (index ^ (index >> 8).wrapping_mul(31) ^ (index >> 16)) as u8
}

/// Writes until the socket takes no more; how much it took.
fn fill(socket: &mut UnixStream, bytes: &[u8]) -> Result<usize, String> {
    let mut taken = 0;
    while taken < bytes.len() {
        match socket.write(&bytes[taken..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(named("send")(error)),
        }
    }
    Ok(taken)
}

fn named<E: std::fmt::Display>(call: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{call}: {error}")
}
