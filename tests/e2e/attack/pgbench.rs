//! One run of pgbench, second by second.

use std::io::Read as _;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::skip::Skip;

use super::ground::Ground;

const INITIALISE_LIMIT: Duration = Duration::from_secs(120);
/// Beyond the time that pgbench was given.
const END_MARGIN: Duration = Duration::from_secs(20);

pub(super) fn require() -> anyhow::Result<()> {
    match Command::new("pgbench").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Skip::because("there is no `pgbench`"),
    }
}

/// On its way.
pub(super) struct Pgbench {
    child: Child,
    output: JoinHandle<std::io::Result<String>>,
    limit: Duration,
}

/// Transactions a second, in each second.
#[derive(Debug)]
pub(super) struct Report(Vec<f64>);

impl Pgbench {
    /// Starts it; its tables are made before the first time.
    pub(super) fn start(ground: &Ground<'_>, duration: Duration) -> anyhow::Result<Self> {
        let initialise = ["-i", "-q", "-I", "dtGvp", "-s", "1"];
        process::run(command(ground).args(initialise), INITIALISE_LIMIT)?.success()?;
        let mut child = command(ground)
            .args([
                "-n", "-S", "-M", "prepared", "-c", "4", "-j", "1", "-P", "1",
            ])
            .args(["-T", &duration.as_secs().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting pgbench")?;
        let mut progress = child.stderr.take().context("pgbench has no stderr")?;
        let output = thread::spawn(move || {
            let mut text = String::new();
            progress.read_to_string(&mut text).map(|_| text)
        });
        Ok(Self {
            child,
            output,
            limit: duration + END_MARGIN,
        })
    }

    /// Waits for its end. A transaction that failed or a client that was thrown out is an error.
    pub(super) fn end(mut self) -> anyhow::Result<Report> {
        let status = process::wait(&mut self.child, self.limit)?;
        let text = self.output.join();
        let text = text.map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let status = status.with_context(|| format!("pgbench hangs: {text}"))?;
        ensure!(status.success(), "pgbench ended with {status}: {text}");
        for word in ["abort", "error", "FATAL", "terminat"] {
            ensure!(!text.contains(word), "pgbench lost a client: {text}");
        }
        let seconds: Vec<f64> = text.lines().filter_map(transactions).collect();
        let failed = text.lines().filter_map(failed).sum::<u64>();
        ensure!(failed == 0, "{failed} transactions failed: {text}");
        Ok(Report(seconds))
    }
}

/// Transactions a second, in quiet and under attack.
pub(super) struct Turns {
    /// Means of all turns.
    pub(super) quiet: f64,
    pub(super) attacked: f64,
    /// Of each turn of attack to the two of quiet beside it, in ascending order.
    pub(super) ratios: Vec<f64>,
    pub(super) median: f64,
}

impl Report {
    /// So many turns of attack, each between two of quiet.
    ///
    /// The first second is left out: clients log in, plans are made.
    pub(super) fn turns(&self, turn: Duration, strikes: u32) -> anyhow::Result<Turns> {
        let (turn, strikes) = (usize::try_from(turn.as_secs())?, strikes as usize);
        // That of the last second may be missing.
        let enough = self.0.len() >= turn * (2 * strikes + 1) - 1;
        ensure!(enough, "pgbench reported {:?}", self.0);
        let seconds = |number: usize| (number * turn).max(1)..(number + 1) * turn;
        let turns: Vec<f64> = (0..=2 * strikes)
            .map(|number| {
                mean(
                    self.0
                        .iter()
                        .take(seconds(number).end)
                        .skip(seconds(number).start),
                )
            })
            .collect();
        let quiet = mean(turns.iter().step_by(2));
        ensure!(quiet > 0.0, "nothing happens in quiet: {:?}", self.0);
        let beside = turns.windows(3).step_by(2);
        let mut ratios: Vec<f64> = beside
            .map(|beside| 2.0 * beside[1] / (beside[0] + beside[2]))
            .collect();
        ratios.sort_by(f64::total_cmp);
        let middle = &ratios[(strikes - 1) / 2..=strikes / 2];
        Ok(Turns {
            quiet,
            attacked: mean(turns.iter().skip(1).step_by(2)),
            median: mean(middle.iter()),
            ratios,
        })
    }
}

fn mean<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

fn command(ground: &Ground<'_>) -> Command {
    let (address, login) = (ground.address(), ground.login());
    let mut command = Command::new("pgbench");
    command
        .env("PGPASSWORD", &login.password)
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .args([
            "-h",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
        ])
        .args(["-U", &login.user, &login.database]);
    command
}

/// `progress: 3.0 s, 8123.4 tps, lat 0.4 ms stddev 0.1, 0 failed`
fn transactions(line: &str) -> Option<f64> {
    let rest = line.strip_prefix("progress: ")?;
    rest.split(", ").nth(1)?.strip_suffix(" tps")?.parse().ok()
}

fn failed(line: &str) -> Option<u64> {
    line.strip_prefix("progress: ")?;
    let (_, rest) = line.rsplit_once(", ")?;
    rest.split(' ').next()?.parse().ok()
}
