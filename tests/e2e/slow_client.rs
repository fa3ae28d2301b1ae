//! One side stops: the other side must be made to wait, and nothing may pile up in between.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::memory::MemoryUse;
use pgs_tests::processor::processor_seconds;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "clients_that_do_not_read_hold_no_memory",
        clients_that_do_not_read,
    ),
    (
        "a_client_that_floods_a_sleeping_backend_is_made_to_wait",
        a_client_that_floods,
    ),
];

const MEGABYTE: u64 = 1 << 20;

/// How long a backend sleeps that is flooded: longer than the flood takes on a busy machine.
const SLEEP: Duration = Duration::from_secs(30);

/// How long a side stands still.
const STALL: Duration = Duration::from_secs(4);

/// What a stalled session may hold: the kernel's buffers of two sockets at their largest (TCP takes
/// up to 6 MiB to receive and 4 MiB to send, a Unix socket 0.2 MiB) and the router's own.
const SESSION_BYTES_MAX: u64 = 12 * MEGABYTE;

/// What the kernel may take meanwhile for everything else on the machine.
const NOISE_BYTES_MAX: u64 = 64 * MEGABYTE;

/// How often, and how many times, memory is looked at again when it is too much.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);
const SETTLE_LOOKS_MAX: usize = 20;

const ROW_BYTES: usize = 128 * 1024;

fn clients_that_do_not_read(stage: &Stage) -> anyhow::Result<()> {
    const CLIENTS: u64 = 8;
    const ROWS: usize = 2_000;
    let router = stage.router()?.process_id();
    let clients: Result<Vec<_>, _> = (0..CLIENTS).map(|_| stage.log_in(stage.alpha()?)).collect();
    let mut clients = clients?;
    let before = MemoryUse::now(router)?;
    for wire in &mut clients {
        wire.send_query(&format!(
            "select lpad(i::text, {ROW_BYTES}, 'x') from generate_series(1, {ROWS}) i"
        ))?;
    }
    // First the buffers fill, then nothing may move any more.
    thread::sleep(STALL / 2);
    let busy = processor_seconds(router)?;
    thread::sleep(STALL);
    let busy = processor_seconds(router)? - busy;
    let growth = settled_growth(
        router,
        before,
        CLIENTS * SESSION_BYTES_MAX + NOISE_BYTES_MAX,
    )?;
    ensure!(
        growth.tcp < CLIENTS * SESSION_BYTES_MAX,
        "TCP buffers: {growth:?}"
    );
    ensure!(
        growth.resident < CLIENTS * MEGABYTE + NOISE_BYTES_MAX / 4,
        "router: {growth:?}"
    );
    ensure!(
        growth.kernel < CLIENTS * SESSION_BYTES_MAX + NOISE_BYTES_MAX,
        "kernel: {growth:?}"
    );
    ensure!(
        busy < STALL.as_secs_f64() / 10.0,
        "the router was busy for {busy} s"
    );
    for (number, wire) in clients.iter_mut().enumerate() {
        read_rows(wire, ROWS).with_context(|| format!("client {number} goes on"))?;
        ensure!(wire.query_value("select 1")? == "1");
    }
    Ok(())
}

fn read_rows(wire: &mut Wire, rows: usize) -> anyhow::Result<()> {
    let mut expected = vec![b'x'; ROW_BYTES];
    for row in 1..=rows {
        let message = loop {
            let message = wire.message()?;
            if message.kind != b'T' {
                break message;
            }
        };
        let number = row.to_string();
        expected[ROW_BYTES - number.len()..].copy_from_slice(number.as_bytes());
        ensure!(message.columns()?[0] == expected, "row {row}");
    }
    wire.until_ready()?;
    Ok(())
}

fn a_client_that_floods(stage: &Stage) -> anyhow::Result<()> {
    const QUERY_BYTES: usize = 1_000_000;
    let router = stage.router()?.process_id();
    let mut wire = stage.log_in(stage.alpha()?)?;
    wire.set_write_limit(STALL / 4)?;
    let before = MemoryUse::now(router)?;
    wire.send_query(&format!("select pg_sleep({})", SLEEP.as_secs()))?;
    let query = format!("select 1 /* {} */", "z".repeat(QUERY_BYTES));
    let mut accepted = 0;
    // It is made to wait at some time; by then the router has taken what it has room for.
    while accepted < 64 * MEGABYTE && wire.send_query(&query).is_ok() {
        accepted += query.len() as u64;
    }
    ensure!(
        accepted < 2 * SESSION_BYTES_MAX,
        "{accepted} bytes were taken from the client"
    );
    let growth = settled_growth(router, before, SESSION_BYTES_MAX + NOISE_BYTES_MAX)?;
    ensure!(
        growth.kernel < SESSION_BYTES_MAX + NOISE_BYTES_MAX,
        "{growth:?}"
    );
    ensure!(growth.resident < SESSION_BYTES_MAX, "{growth:?}");
    Ok(())
}

/// How much more memory is used than `before`, once the kernel's is below `bound` or has been given
/// time enough. What others do on the machine comes and goes; what waits in sockets stays.
fn settled_growth(router: u32, before: MemoryUse, bound: u64) -> anyhow::Result<MemoryUse> {
    let mut growth = MemoryUse::now(router)?.growth_since(before);
    for _ in 0..SETTLE_LOOKS_MAX {
        if growth.kernel < bound {
            break;
        }
        thread::sleep(SETTLE_INTERVAL);
        growth = MemoryUse::now(router)?.growth_since(before);
    }
    Ok(growth)
}
