//! Many connections that say little or nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;

use super::ground::Ground;
use super::ground::paced;
use super::say;

const DRIPPING: usize = 100;
const SILENT: usize = 5_000;
/// Addresses of the loopback network that they come from.
const SOURCES: usize = 50;
/// This process's own files beside the connections.
const DESCRIPTORS_BESIDE: u64 = 500;
/// Between two looks at whether clients get in. Each is a login, which takes the processors
/// from the tenant, too: every 20 ms, throughput was 0.86 to 0.91 of what it is in quiet, and with
/// this period 0.98 to 1.06.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Startup packets that take seconds to arrive.
pub(super) fn one_byte_at_a_time(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    let long = "x".repeat(2000);
    let packet = startup_packet(PROTOCOL_3_0, &[("user", "nobody"), ("database", &long)]);
    let mut streams = Vec::new();
    for _ in 0..DRIPPING {
        streams.push(ground.connect()?);
    }
    // Each of them gets a byte 20 times a second.
    let mut bytes = packet.iter();
    paced(20, stop, |_| {
        let Some(byte) = bytes.next() else {
            return Ok(());
        };
        for stream in &mut streams {
            stream.write_all(&[*byte])?;
        }
        Ok(())
    })
}

/// As many connections as can be had, all at once, that say nothing: more than there are places for
/// such. Whoever says something still gets in.
pub(super) fn silent(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let possible = usize::try_from(limit.saturating_sub(DESCRIPTORS_BESIDE))?;
    let wanted = SILENT.min(possible);
    if wanted < SILENT {
        say(&format!(
            "skipped: {SILENT} connections: {limit} descriptors allow {wanted}"
        ));
    }
    let mut streams: Vec<TcpStream> = Vec::with_capacity(wanted);
    while streams.len() < wanted && !stop.load(Ordering::Relaxed) {
        // From many addresses: what one may have is bounded.
        let host = 2 + streams.len() % SOURCES;
        streams.push(ground.connect_from([127, 0, 0, u8::try_from(host)?].into())?);
    }
    ensure!(
        streams.len() == wanted,
        "only {} connections came about",
        streams.len()
    );
    while !stop.load(Ordering::Relaxed) {
        ground.still_lets_clients_in()?;
        thread::sleep(LOOK_PERIOD);
    }
    Ok(streams.len() as u64)
}
