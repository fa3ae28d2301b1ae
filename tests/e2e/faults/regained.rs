//! A router with both directions in the kernel comes after one that had only one of them: what is
//! attached to the other's maps is not for its sessions.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::processor::processor_seconds;
use pgs_tests::stage::Stage;

use super::fallback::BLIND;
use super::fallback::log_in;
use super::fallback::require_kernel;
use super::fallback::serves;
use super::fallback::start;
use super::stalls::BUSY_MAX;

const LIMIT: Duration = Duration::from_secs(30);

/// How long the one that was taken over is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// After so long a client that is made to wait is taken for one that nothing more is taken from.
const STUCK: Duration = Duration::from_millis(500);

/// More than all buffers between a client and a backend that does not read.
const FLOOD_BYTES: usize = 64 << 20;

pub(super) fn both_directions(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let mut first = start(stage, "regained", &BLIND, None)?;
    ensure!(first.status()?["path_one_way"].is_string());
    let mut flooding = log_in(&first, stage)?;
    flooding.set_write_limit(STUCK)?;
    flooding.send_query("select pg_sleep(20)")?;
    let taken = flooding.send_until_stuck(&vec![b'z'; FLOOD_BYTES])?;
    ensure!(taken < FLOOD_BYTES, "all of a flood was taken");

    let second = first.successor("second.log", &["--path", "auto", "--take-over"])?;
    let status = second.status()?;
    ensure!(
        status["path"] == "kernel" && status["path_one_way"].is_null(),
        "{status}"
    );
    // The first one keeps what it serves, and does nothing for a client that has to wait.
    let before = processor_seconds(first.process_id())?;
    thread::sleep(LOOK);
    let busy = (processor_seconds(first.process_id())? - before) / LOOK.as_secs_f64();
    ensure!(busy < BUSY_MAX, "the first one uses {busy} of a processor");

    let mut wire = log_in(&second, stage)?;
    serves(&mut wire)?;
    wire.send_query("select 'last'")?;
    wire.shut_down_writing()?;
    let rest = wire.receive_to_end()?;
    ensure!(
        rest.ends_with(b"Z\0\0\0\x05I"),
        "{} bytes; {}",
        rest.len(),
        second.log()
    );
    flooding.reset()?;
    let ended = first.wait(LIMIT)?.context("the first one goes on")?;
    ensure!(ended.success(), "{ended}: {}", first.log());
    Ok(())
}
