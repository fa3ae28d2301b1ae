//! The canary of a backend that leaves the verdict and comes back.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use super::named;
use super::stage::Stage;
use crate::config::limits::CANARY_DEADLINE;
use crate::config::limits::CANARY_POLL_INTERVAL;
use crate::config::limits::CANARY_STREAM_BYTES;
use crate::datapath::direction::Direction;
use crate::datapath::kernel::Enrolment;
use crate::datapath::kernel::KernelAccess;
use crate::datapath::kernel::Pressure;
use crate::datapath::kernel::Unreceived;
use crate::datapath::socket;

/// A backend that sends without being read is found blocked, leaves the verdict without a byte
/// lost, and is redirected again when it has come back.
///
/// Where it is not found blocked nothing is lost either: then every large turn passes the verdict,
/// which is slower.
pub(super) fn run(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    let mut enrolment = stage.enrol(kernel)?;
    kernel.open(&enrolment);
    let mut backend = stage.backend.try_clone().map_err(named("dup"))?;
    backend.set_nonblocking(false).map_err(named("fcntl"))?;
    let bytes = stream();
    let sent = bytes.clone();
    let sending = thread::spawn(move || backend.write_all(&sent));
    let blocked = is_blocked_in_time(kernel, &enrolment);
    if blocked == Ok(true) {
        kernel
            .withdraw_backend(&enrolment)
            .map_err(named("withdrawal"))?;
    }
    let received = receive(kernel, &mut enrolment, &mut stage, &bytes);
    if received.is_err() {
        // The thread would wait for ever.
        drop(stage.router_backend.shutdown(std::net::Shutdown::Both));
    }
    let written = sending
        .join()
        .map_err(|_| "the backend's thread panicked")?;
    received?;
    written.map_err(named("send by the backend"))?;
    if !blocked? {
        kernel.end(&enrolment);
        return Ok("a backend is not found blocked: large results pass the verdict".into());
    }
    comes_back(kernel, &mut enrolment, &mut stage)?;
    kernel.end(&enrolment);
    Ok(format!(
        "{CANARY_STREAM_BYTES} bytes arrived in order, and the kernel took over again"
    ))
}

/// Bytes in which every shift shows.
fn stream() -> Vec<u8> {
    let byte = |at: usize| (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16)) as u8;
    (0..CANARY_STREAM_BYTES).map(byte).collect()
}

fn is_blocked_in_time(kernel: &mut KernelAccess, enrolment: &Enrolment) -> Result<bool, String> {
    let deadline = Instant::now() + CANARY_DEADLINE / 4;
    while Instant::now() < deadline {
        let pressure = kernel
            .pressure(enrolment)
            .map_err(named("the question whether it is blocked"))?;
        if pressure == Pressure::Blocked {
            return Ok(true);
        }
        thread::sleep(CANARY_POLL_INTERVAL);
    }
    Ok(false)
}

/// What was redirected by the client, the rest by the router: together all that was sent.
fn receive(
    kernel: &mut KernelAccess,
    enrolment: &mut Enrolment,
    stage: &mut Stage,
    bytes: &[u8],
) -> Result<(), String> {
    let direction = Direction::ToClient;
    let deadline = Instant::now() + CANARY_DEADLINE;
    let mut received = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    let mut redirected = kernel.redirected(enrolment, direction) as usize;
    while redirected + received.len() < bytes.len() {
        let before = received.len();
        let (read, diverted) = match kernel.unreceived(enrolment, direction) {
            Unreceived::Aside(count) => {
                let most = piece.len().min(count as usize);
                let aside = enrolment.aside().ok_or("there is no private socket")?;
                (aside.recv(&mut piece[..most]), true)
            }
            Unreceived::AtSource(count) => {
                let most = piece.len().min(count as usize);
                ((&stage.router_backend).read(&mut piece[..most]), true)
            }
            Unreceived::Nothing => ((&stage.router_backend).read(&mut piece), false),
        };
        match read {
            Ok(count) => received.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(CANARY_POLL_INTERVAL);
            }
            Err(error) => return Err(named("recv by the router")(error)),
        }
        if diverted {
            let count = (received.len() - before) as u64;
            kernel.record(enrolment, direction, count, true);
        }
        redirected = kernel.redirected(enrolment, direction) as usize;
        if Instant::now() > deadline {
            let arrived = redirected + received.len();
            return Err(format!("{arrived} of {CANARY_STREAM_BYTES} bytes arrived"));
        }
    }
    stage.expect(&bytes[..redirected])?;
    let dropped = socket::dropped_buffers(&stage.router_backend).map_err(named("SO_MEMINFO"))?;
    if dropped != 0 || received != bytes[redirected..] {
        return Err(format!(
            "{dropped} buffers were dropped, or other bytes came than were sent"
        ));
    }
    Ok(())
}

fn comes_back(
    kernel: &mut KernelAccess,
    enrolment: &mut Enrolment,
    stage: &mut Stage,
) -> Result<(), String> {
    let returned = kernel
        .return_backend(enrolment, &stage.router_backend)
        .map_err(named("the way back"))?;
    if !returned {
        return Err("bytes wait in a queue that nobody wrote to".into());
    }
    // The client's turn ends the large one.
    stage.client.write_all(b"next").map_err(named("send"))?;
    let mut question = [0; 4];
    let deadline = Instant::now() + CANARY_DEADLINE;
    while kernel.unreceived(enrolment, Direction::ToBackend) != Unreceived::AtSource(4) {
        if Instant::now() > deadline {
            return Err("what the client sends does not come to the router".into());
        }
        thread::sleep(CANARY_POLL_INTERVAL);
    }
    stage
        .router_client
        .read_exact(&mut question)
        .map_err(named("recv by the router"))?;
    kernel.record(enrolment, Direction::ToBackend, 4, true);
    let before = kernel.redirected(enrolment, Direction::ToClient);
    let mut backend: &UnixStream = &stage.backend;
    backend.write_all(b"answer").map_err(named("send"))?;
    stage.expect(b"answer")?;
    match kernel.redirected(enrolment, Direction::ToClient) - before {
        6 => Ok(()),
        other => Err(format!("{other} of 6 bytes by the program")),
    }
}
