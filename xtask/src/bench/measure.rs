//! One measurement: runs the client, and gives its numbers.

use super::copy;
use super::cpu::{Spent, Ticks};
use super::figure::{Figure, Metric};
use super::idle::idle;
use super::options::Settings;
use super::pgbench::{Latency, Log, Summary};
use super::plan::{CLIENTS_FEW, Cell};
use super::stage::Stage;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

/// Which part of the transactions pgbench logs: enough for a p99, little enough to cost nothing.
const SAMPLED: f64 = 0.2;

/// The numbers of one measurement.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) metrics: BTreeMap<Metric, f64>,
    pub(super) timing: Timing,
}

/// How long something took, and what of the machine.
#[derive(Debug)]
pub(super) struct Timing {
    pub(super) seconds: f64,
    pub(super) spent: Spent,
}

/// Runs the client of a cell to its end.
pub(super) fn measure(stage: &Stage, settings: &Settings, cell: Cell) -> Result<Values> {
    let (metrics, timing) = match cell.figure {
        Figure::Select { mode, clients } => {
            let arguments = ["-S", "-M", mode.name()];
            timed(|| load(stage, settings, cell, clients, &arguments))?
        }
        Figure::TpcB { clients } => {
            timed(|| load(stage, settings, cell, clients, &["-M", "prepared"]))?
        }
        Figure::Connections { clients } => timed(|| connections(stage, settings, cell, clients))?,
        Figure::Growth { tenants } => {
            stage.register_tenants(tenants)?;
            let measured = timed(|| connections(stage, settings, cell, CLIENTS_FEW));
            stage.register_tenants(1)?;
            measured?
        }
        Figure::CopyOut => {
            let ((), timing) = timed(|| copy::out(stage, settings, cell))?;
            (copy::metrics(settings, &timing), timing)
        }
        Figure::CopyIn => {
            let ((), timing) = timed(|| copy::into(stage, settings, cell))?;
            (copy::metrics(settings, &timing), timing)
        }
        Figure::IdleSessions => timed(|| idle(stage, settings, cell.subject))?,
    };
    Ok(Values { metrics, timing })
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Timing)> {
    let (began, ticks) = (Instant::now(), Ticks::now()?);
    let done = work()?;
    let seconds = began.elapsed().as_secs_f64();
    let spent = ticks.elapsed()?;
    Ok((done, Timing { seconds, spent }))
}

/// pgbench for the time set, with its latencies.
fn load(
    stage: &Stage,
    settings: &Settings,
    cell: Cell,
    clients: u32,
    arguments: &[&str],
) -> Result<BTreeMap<Metric, f64>> {
    let directory = stage.ground.path("log");
    fs::create_dir_all(&directory)?;
    let prefix = directory.join("pgbench").display().to_string();
    let mut pgbench = pgbench(stage, settings, cell, clients)?;
    pgbench
        .args(arguments)
        .args(["-l", "--log-prefix", &prefix]);
    pgbench.args(["--sampling-rate", &SAMPLED.to_string()]);
    let run = timed(|| stage.run(&mut pgbench));
    let latency = read_log(&directory);
    fs::remove_dir_all(&directory)?;
    let (printed, Timing { spent, .. }) = run?;
    let summary = Summary::parse(&printed)?;
    let latency = latency?;
    // Exact: far below 2^52.
    let exact = |number: u64| number as f64;
    let cpu = spent.busy_seconds * 1e6 / exact(summary.transactions.max(1));
    Ok(BTreeMap::from([
        (
            Metric::TransactionsPerSecond,
            summary.transactions_per_second,
        ),
        (Metric::LatencyP50Microseconds, exact(latency.p50)),
        (Metric::LatencyP99Microseconds, exact(latency.p99)),
        (Metric::CpuMicroseconds, cpu),
    ]))
}

fn read_log(directory: &Path) -> Result<Latency> {
    let mut log = Log::default();
    for entry in fs::read_dir(directory)? {
        log.read(&fs::read_to_string(entry?.path())?)?;
    }
    log.latency()
}

fn connections(
    stage: &Stage,
    settings: &Settings,
    cell: Cell,
    clients: u32,
) -> Result<BTreeMap<Metric, f64>> {
    let mut pgbench = pgbench(stage, settings, cell, clients)?;
    let printed = stage.run(pgbench.args(["-S", "-C"]))?;
    let rate = Summary::parse(&printed)?.transactions_per_second;
    Ok(BTreeMap::from([(Metric::ConnectionsPerSecond, rate)]))
}

fn pgbench(stage: &Stage, settings: &Settings, cell: Cell, clients: u32) -> Result<Command> {
    let seconds = settings.seconds;
    let threads = thread::available_parallelism()?.get().min(clients as usize);
    let mut pgbench = stage.client("pgbench", cell.place, cell.subject, seconds)?;
    pgbench.args(["-n", "-T", &seconds.to_string()]).args([
        "-c",
        &clients.to_string(),
        "-j",
        &threads.to_string(),
    ]);
    Ok(pgbench)
}
