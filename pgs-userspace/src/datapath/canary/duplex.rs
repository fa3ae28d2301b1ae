//! The canary of a whole session: a real worker between two ends that both write and do not read,
//! until nothing moves any more; then both read.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;

use super::named;
use super::stage::Stage;
use crate::config::limits::CANARY_ATTEMPTS_DEADLINE;
use crate::config::limits::CANARY_ATTEMPTS_MAX;
use crate::config::limits::CANARY_DEADLINE;
use crate::config::limits::CANARY_POLL_INTERVAL;
use crate::config::limits::CANARY_QUEUED_BYTES_MAX;
use crate::config::limits::CANARY_SMALL_TURNS;
use crate::config::limits::CANARY_SOCKET_BUFFER_BYTES;
use crate::config::limits::CANARY_STALL;
use crate::config::limits::CANARY_STREAM_BYTES;
use crate::datapath::handover::CloseReason;
use crate::datapath::handover::Handover;
use crate::datapath::handover::Lease;
use crate::datapath::handover::SessionSockets;
use crate::datapath::kernel::KernelAccess;
use crate::datapath::kernel::KernelPath;
use crate::datapath::kernel::Notices;
use crate::datapath::kernel::Ways;
use crate::datapath::meter::Meter;
use crate::datapath::meter::Path;
use crate::datapath::reach::WorkerHandle;
use crate::datapath::reach::WorkerReach;

/// What a stream writes and reads at once, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// A small turn in each direction, after the large one.
const TURN: &[u8] = b"a small turn";

#[derive(Debug)]
struct NoLease;

impl Lease for NoLease {
    fn owner(&self) -> &str {
        "canary"
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

/// With two ends that do not read, both are made to wait; when they read again, every byte arrives
/// once and in order, and small turns are redirected again.
pub(super) fn run(kernel: &KernelPath, access: KernelAccess) -> Result<String, String> {
    let worker = WorkerHandle::start(0, Some(access)).map_err(named("thread of a worker"))?;
    let until = Instant::now() + CANARY_ATTEMPTS_DEADLINE;
    let mut seen = exercise(kernel, &worker);
    // On a machine under load the kernel's worker may be late, and what waits for it is charged to
    // nobody so long. A kernel that has no bound has none the next time either.
    for _ in 1..CANARY_ATTEMPTS_MAX {
        if seen.is_ok() || Instant::now() >= until {
            break;
        }
        seen = exercise(kernel, &worker);
    }
    worker.end_all(CloseReason::Shutdown);
    worker.join();
    seen
}

fn exercise(kernel: &KernelPath, worker: &WorkerHandle) -> Result<String, String> {
    let stage = Stage::set()?;
    for size in [
        setsockopt(&stage.client, sockopt::RcvBuf, &CANARY_SOCKET_BUFFER_BYTES),
        setsockopt(&stage.client, sockopt::SndBuf, &CANARY_SOCKET_BUFFER_BYTES),
        // Otherwise the kernel lets it grow to some megabytes where the router reads fast.
        setsockopt(
            &stage.router_client,
            sockopt::RcvBuf,
            &CANARY_SOCKET_BUFFER_BYTES,
        ),
    ] {
        size.map_err(named("SO_RCVBUF and SO_SNDBUF"))?;
    }
    stage.client.set_nonblocking(true).map_err(named("fcntl"))?;
    let meter = Arc::new(Meter::new());
    let notices = kernel.notices().map_err(named("the ring buffer"))?;
    let (mut ends, handover) = split(stage, worker.reach(), notices, &meter);
    if worker.adopt(handover).is_err() {
        return Err("the worker takes no session".into());
    }
    wait_for_path(&meter)?;
    let place = meter.place().ok_or("the session has no place")?;

    let (mut down, mut up) = (Stream::new(1), Stream::new(2));
    ends.stand_still(&mut down, &mut up)?;
    let queued = down.written + up.written;
    // Of each: a direction without a bound takes all of its stream.
    for stream in [&down, &up] {
        if stream.written > CANARY_QUEUED_BYTES_MAX {
            return Err(format!(
                "{} bytes were taken for an end that reads nothing",
                stream.written
            ));
        }
    }
    ends.flow(&mut down, &mut up)?;
    let before = kernel.flows().bytes(place);
    ends.small_turns()?;
    let after = kernel.flows().bytes(place);
    let least = TURN.len() as u64;
    let both = *kernel.ways() == Ways::Both;
    if after.to_client - before.to_client < least
        || both && after.to_backend - before.to_backend < least
    {
        return Err("small turns after a large one are not redirected".into());
    }
    Ok(format!(
        "both ends waited after {queued} bytes, 2 x {CANARY_STREAM_BYTES} arrived in order, and \
         the kernel took over again"
    ))
}

fn split(
    stage: Stage,
    worker: WorkerReach,
    notices: Notices,
    meter: &Arc<Meter>,
) -> (Ends, Handover) {
    let handover = Handover {
        client: stage.router_client,
        backend: stage.router_backend,
        pending_to_backend: Bytes::new(),
        pending_to_client: Bytes::new(),
        account: 0,
        relayed: None,
        meter: Arc::clone(meter),
        lease: Box::new(NoLease),
    };
    let ends = Ends {
        worker,
        notices,
        backend: stage.backend,
        client: stage.client,
    };
    (ends, handover)
}

fn wait_for_path(meter: &Meter) -> Result<(), String> {
    let deadline = Instant::now() + CANARY_DEADLINE;
    while meter.path() != Path::Kernel {
        if let Some(reason) = meter.relay_reason() {
            return Err(format!("the session is relayed: {reason}"));
        }
        if Instant::now() > deadline {
            return Err("the session is not enrolled".into());
        }
        std::thread::sleep(CANARY_POLL_INTERVAL);
    }
    Ok(())
}

/// Bytes in which every shift shows: so many are written, so many have arrived as they should.
struct Stream {
    seed: usize,
    written: usize,
    arrived: usize,
}

impl Stream {
    fn new(seed: usize) -> Self {
        Self {
            seed,
            written: 0,
            arrived: 0,
        }
    }

    fn byte(&self, index: usize) -> u8 {
        (index ^ (index >> 8).wrapping_mul(31) ^ (index >> 16) ^ self.seed) as u8
    }

    /// Writes what the socket takes; whether it took anything.
    fn write(&mut self, socket: &mut impl Write) -> Result<bool, String> {
        let until = CANARY_STREAM_BYTES.min(self.written + PIECE_BYTES);
        let piece: Vec<u8> = (self.written..until)
            .map(|index| self.byte(index))
            .collect();
        match socket.write(&piece) {
            Ok(count) => {
                self.written += count;
                Ok(count > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(named("send")(error)),
        }
    }

    /// Reads what the socket has, and compares.
    fn read(&mut self, socket: &mut impl Read) -> Result<(), String> {
        let mut piece = [0; PIECE_BYTES];
        let count = match socket.read(&mut piece) {
            Ok(0) => return Err(format!("the stream ends after {} bytes", self.arrived)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(named("recv")(error)),
        };
        for byte in &piece[..count] {
            if *byte != self.byte(self.arrived) {
                return Err(format!(
                    "byte {} is not the one that was sent: lost, doubled or reordered",
                    self.arrived
                ));
            }
            self.arrived += 1;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.arrived == CANARY_STREAM_BYTES
    }
}

/// The two ends of a session, the worker that has it, and the notices that it is told of.
struct Ends {
    worker: WorkerReach,
    notices: Notices,
    backend: UnixStream,
    client: TcpStream,
}

impl Ends {
    /// Brings the notices that there are to the worker.
    fn bring_notices(&mut self) {
        let worker = &self.worker;
        self.notices.read(|place| {
            worker.notice(place);
        });
    }

    /// Both ends write and do not read, until nothing moves any more.
    fn stand_still(&mut self, down: &mut Stream, up: &mut Stream) -> Result<(), String> {
        let mut moved_at = Instant::now();
        while moved_at.elapsed() < CANARY_STALL {
            self.bring_notices();
            let moved = down.write(&mut self.backend)? | up.write(&mut self.client)?;
            if moved {
                moved_at = Instant::now();
            } else {
                std::thread::sleep(CANARY_POLL_INTERVAL);
            }
            if down.written == CANARY_STREAM_BYTES && up.written == CANARY_STREAM_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// Both ends read, and write the rest.
    fn flow(&mut self, down: &mut Stream, up: &mut Stream) -> Result<(), String> {
        let deadline = Instant::now() + CANARY_DEADLINE;
        while !(down.is_over() && up.is_over()) {
            self.bring_notices();
            down.write(&mut self.backend)?;
            up.write(&mut self.client)?;
            down.read(&mut self.client)?;
            up.read(&mut self.backend)?;
            if Instant::now() > deadline {
                return Err(format!(
                    "{} and {} of {CANARY_STREAM_BYTES} bytes arrived",
                    down.arrived, up.arrived
                ));
            }
        }
        Ok(())
    }

    /// A question and an answer, several times: the first ones may still be relayed.
    fn small_turns(&mut self) -> Result<(), String> {
        for _ in 0..CANARY_SMALL_TURNS {
            for to_backend in [true, false] {
                let sent = if to_backend {
                    self.client.write(TURN)
                } else {
                    self.backend.write(TURN)
                };
                sent.map_err(named("send"))?;
                let mut received = Vec::new();
                let deadline = Instant::now() + CANARY_DEADLINE;
                while received.len() < TURN.len() {
                    self.bring_notices();
                    let mut piece = [0; TURN.len()];
                    let read = if to_backend {
                        self.backend.read(&mut piece)
                    } else {
                        self.client.read(&mut piece)
                    };
                    match read {
                        Ok(count) => received.extend_from_slice(&piece[..count]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(named("recv")(error)),
                    }
                    if Instant::now() > deadline {
                        return Err("a small turn after a large one does not arrive".into());
                    }
                }
                if received != TURN {
                    return Err("a small turn arrives as something else".into());
                }
            }
        }
        Ok(())
    }
}
