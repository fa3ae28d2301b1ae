//! One side stands still: memory stays flat, nobody is busy, and when it goes on every byte is
//! there.

use std::fs;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;
use pgs_tests::length::Length;
use pgs_tests::memory::MemoryUse;
use pgs_tests::process;
use pgs_tests::processor::KernelWorkers;
use pgs_tests::processor::processor_seconds;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;

use super::roomy_tenant;
use super::say;

pub(super) const MEGABYTE: u64 = 1 << 20;
pub(super) const ROW_BYTES: usize = 128 * 1024;

/// What one session may hold in the kernel, and what others on the machine may take meanwhile: as
/// in `slow_client`.
pub(super) const SESSION_BYTES_MAX: u64 = 12 * MEGABYTE;
pub(super) const NOISE_BYTES_MAX: u64 = 64 * MEGABYTE;

/// What the router may use of one processor's time while its clients stand still.
pub(super) const BUSY_MAX: f64 = 0.05;

/// And the kernel's workers: 500 of them took 2.3 % on the kernel path, where each tries again by
/// timer to give a buffer to a socket that is full.
const WORKERS_BUSY_MAX: f64 = 0.10;

/// What the router may hold for a client that does not read: one read, and what it takes itself.
const ROUTER_BYTES_MAX: u64 = 256 * 1024;

const LIMIT: Duration = Duration::from_secs(60);

/// From where a backend waits for the first time until nothing moves any more.
const SETTLE: Duration = Duration::from_secs(1);

/// Rows of a size that is known, each of which says which one it is.
pub(super) struct Rows {
    expected: Vec<u8>,
    read: usize,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            expected: vec![b'x'; ROW_BYTES],
            read: 0,
        }
    }

    pub(super) fn query(rows: usize) -> String {
        format!("select lpad(i::text, {ROW_BYTES}, 'x') from generate_series(1, {rows}) i")
    }

    /// Reads up to this row.
    pub(super) fn read_to(&mut self, wire: &mut Wire, row: usize) -> anyhow::Result<()> {
        while self.read < row {
            let message = wire.message()?;
            if message.kind == b'T' {
                continue;
            }
            self.read += 1;
            let number = self.read.to_string();
            self.expected[ROW_BYTES - number.len()..].copy_from_slice(number.as_bytes());
            ensure!(message.columns()?[0] == self.expected, "row {number}");
        }
        Ok(())
    }
}

/// Stops three times within one result.
pub(super) fn a_large_result(stage: &Stage) -> anyhow::Result<()> {
    let length = Length::of_this_run()?;
    let rows = length.pick(256 << 20, 10 << 30) / ROW_BYTES;
    let stall = length.pick(Duration::from_secs(2), Duration::from_secs(20));
    // What the kernel lets the buffer of a client grow to that has read fast until then.
    let receive_buffer_max = fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem")?;
    let receive_buffer_max = receive_buffer_max.split_whitespace().last();
    let receive_buffer_max: u64 = receive_buffer_max.context("no bound")?.parse()?;
    let router = stage.router()?.process_id();
    let mut watcher = stage.log_in(stage.alpha()?)?;
    let mut wire = stage.log_in(stage.alpha()?)?;
    let backend = wire.query_value("select pg_backend_pid()")?;
    let waits = format!("select wait_event from pg_stat_activity where pid = {backend}");
    let before = MemoryUse::now(router)?;
    wire.send_query(&Rows::query(rows))?;
    let mut read = Rows::new();
    for quarter in 1..=3 {
        read.read_to(&mut wire, rows / 4 * quarter)?;
        process::eventually("the backend waits", LIMIT, || {
            Ok((watcher.query_value(&waits)? == "ClientWrite").then_some(()))
        })?;
        let busy = stands_flat(router, stall)?;
        ensure!(busy < BUSY_MAX, "stop {quarter}: {busy} of a processor");
        let held = MemoryUse::now(router)?.growth_since(before);
        say(&format!(
            "a stopped result, {}: stop {quarter} at row {} of {rows}, {} s: {} KiB more in TCP \
             buffers than before the query, {} KiB more in the router",
            stage.path(),
            read.read,
            stall.as_secs(),
            held.tcp / 1024,
            held.resident / 1024,
        ));
        ensure!(
            held.resident < SESSION_BYTES_MAX && held.tcp < SESSION_BYTES_MAX + receive_buffer_max,
            "stop {quarter}: {held:?}"
        );
        let waits = watcher.query_value(&waits)?;
        ensure!(
            waits == "ClientWrite",
            "stop {quarter}: it waits for {waits}"
        );
    }
    read.read_to(&mut wire, rows)?;
    wire.until_ready()?;
    ensure!(wire.query_value("select 1")? == "1");
    Ok(())
}

/// Waits until so long no more memory is taken; what the router used of a processor meanwhile.
///
/// A client's window may open again by itself, when its kernel has packed more tightly what waits
/// in its buffer: so the first look need not be the last. What others do on the machine comes and
/// goes; what waits in sockets stays.
pub(super) fn stands_flat(router: u32, stall: Duration) -> anyhow::Result<f64> {
    let mut last = MemoryUse::default();
    let flat = process::eventually("memory is flat", LIMIT + 2 * stall, || {
        thread::sleep(SETTLE);
        let (busy, full) = (processor_seconds(router)?, MemoryUse::now(router)?);
        thread::sleep(stall);
        let busy = (processor_seconds(router)? - busy) / stall.as_secs_f64();
        last = MemoryUse::now(router)?.growth_since(full);
        let is_flat = last.tcp < MEGABYTE && last.resident < MEGABYTE;
        Ok((is_flat && last.kernel < NOISE_BYTES_MAX).then_some(busy))
    });
    flat.with_context(|| format!("{last:?}"))
}

pub(super) fn many_clients(stage: &Stage) -> anyhow::Result<()> {
    const ROWS: usize = 128;
    let length = Length::of_this_run()?;
    let count = length.pick(24, 500);
    let fill = length.pick(Duration::from_secs(2), Duration::from_secs(20));
    let window = length.pick(Duration::from_secs(4), Duration::from_secs(20));
    let tenant = roomy_tenant(stage, "stalled", count)?;
    let router = stage.router()?.process_id();
    let clients: Result<Vec<_>, _> = (0..count).map(|_| stage.log_in(tenant.login())).collect();
    let mut clients = clients?;
    let quiet = busy(router, window)?;
    let before = MemoryUse::now(router)?;
    for wire in &mut clients {
        wire.send_query(&Rows::query(ROWS))?;
    }
    // First the buffers fill, then nothing may move any more.
    thread::sleep(fill);
    let stalled = busy(router, window)?;
    let growth = MemoryUse::now(router)?.growth_since(before);
    say(&format!(
        "stalled clients, {}: {count}; router {:.1} % of a processor ({:.1} % before), the \
         kernel's workers {:.1} % ({:.1} % before); {} KiB of TCP buffers and {} KiB of router \
         each",
        stage.path(),
        stalled.router * 100.0,
        quiet.router * 100.0,
        stalled.workers * 100.0,
        quiet.workers * 100.0,
        growth.tcp / 1024 / count as u64,
        growth.resident / 1024 / count as u64,
    ));
    ensure!(
        stalled.router < BUSY_MAX,
        "{} of a processor",
        stalled.router
    );
    ensure!(
        stalled.workers - quiet.workers < WORKERS_BUSY_MAX,
        "the kernel's workers: {} of a processor",
        stalled.workers
    );
    let count = count as u64;
    ensure!(growth.tcp < count * SESSION_BYTES_MAX, "{growth:?}");
    ensure!(growth.resident < count * ROUTER_BYTES_MAX, "{growth:?}");
    for (number, mut wire) in clients.into_iter().enumerate() {
        let mut read = Rows::new();
        read.read_to(&mut wire, ROWS)
            .with_context(|| format!("client {number} goes on"))?;
        wire.until_ready()?;
    }
    Ok(())
}

/// Parts of one processor's time.
struct Busy {
    router: f64,
    workers: f64,
}

fn busy(router: u32, window: Duration) -> anyhow::Result<Busy> {
    let (of_router, of_workers) = (processor_seconds(router)?, KernelWorkers::now()?);
    thread::sleep(window);
    let seconds = window.as_secs_f64();
    Ok(Busy {
        router: (processor_seconds(router)? - of_router) / seconds,
        workers: KernelWorkers::now()?.seconds_since(&of_workers) / seconds,
    })
}

/// The rows of a COPY wait for a lock, and with them the client that sends them.
pub(super) fn a_copy_that_waits(stage: &Stage) -> anyhow::Result<()> {
    const LINES: usize = 64_000;
    const LINE_BYTES: usize = 1_000;
    let router = stage.router()?.process_id();
    let mut owner = stage.log_in(stage.alpha()?)?;
    owner.query("drop table if exists locked; create table locked (n int, line text)")?;
    owner.query("begin; lock table locked in access exclusive mode")?;
    let mut wire = stage.log_in(stage.alpha()?)?;
    let mut writer = wire.try_clone()?;
    let before = MemoryUse::now(router)?;
    wire.send_query("copy locked from stdin")?;
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 1..=LINES {
                let line = format!("{number}\t{number:y>LINE_BYTES$}\n");
                writer.send_message(b'd', line.as_bytes())?;
                sent.fetch_add(line.len() as u64, Relaxed);
            }
            writer.send(&packed(b'c', &[]))
        });
        let stopped_at = stands_still(&sent);
        let growth = MemoryUse::now(router).map(|now| now.growth_since(before));
        // Whatever was found: without this the writer would wait for ever.
        owner.query("commit")?;
        let written = writing.join().map_err(|_| anyhow!("the writer panicked"))?;
        written?;
        let (stopped_at, growth) = (stopped_at?, growth?);
        ensure!(
            stopped_at < 2 * SESSION_BYTES_MAX,
            "{stopped_at} bytes were taken"
        );
        ensure!(
            growth.kernel < SESSION_BYTES_MAX + NOISE_BYTES_MAX
                && growth.resident < SESSION_BYTES_MAX,
            "{growth:?}"
        );
        anyhow::Ok(())
    })?;
    wire.until_ready()?;
    let exact = format!(
        "select count(*) || ' ' || count(distinct n) || ' ' || \
         bool_and(line = lpad(n::text, {LINE_BYTES}, 'y')) from locked"
    );
    let found = wire.query_value(&exact)?;
    ensure!(found == format!("{LINES} {LINES} true"), "{found}");
    Ok(())
}

/// Waits until a count changes no more; what it is then.
fn stands_still(count: &AtomicU64) -> anyhow::Result<u64> {
    const QUIET_LOOKS: usize = 10;
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    let (mut last, mut quiet) = (0, 0);
    for _ in 0..LIMIT.as_millis() / LOOK_EVERY.as_millis() {
        thread::sleep(LOOK_EVERY);
        let now = count.load(Relaxed);
        quiet = if now == last && now > 0 { quiet + 1 } else { 0 };
        last = now;
        if quiet == QUIET_LOOKS {
            return Ok(last);
        }
    }
    Err(anyhow!("the client is never made to wait: {last} bytes"))
}
