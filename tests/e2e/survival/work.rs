//! pgbench as the load, and what its clients had answers to at what time.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::process::Finished;
use pgs_tests::router::Router;
use pgs_tests::tenant::Login;

use super::CLIENTS;
use super::LIMIT;
use super::WORK;
use super::client;
use super::seen;

/// Of its transactions pgbench writes down this part, each with its time.
const SAMPLED: &str = "0.05";

/// pgbench at work.
pub(super) struct Work {
    thread: JoinHandle<anyhow::Result<Finished>>,
    /// Where it writes down what it does, in files that begin so.
    log: PathBuf,
}

impl Work {
    /// Returns once all of its sessions are in the kernel.
    pub(super) fn begin(router: &Router, login: &Login) -> anyhow::Result<Self> {
        let log = router.run_directory().join("transactions");
        let mut bench = client(router, "pgbench", login);
        let (clients, seconds) = (CLIENTS.to_string(), WORK.as_secs().to_string());
        bench.args(["-n", "-S", "-j", "2", "-c", &clients, "-T", &seconds]);
        bench.args(["--log", "--sampling-rate", SAMPLED, "--log-prefix"]);
        bench.arg(&log);
        let thread = thread::spawn(move || process::run(&mut bench, LIMIT));
        let work = Self { thread, log };
        process::eventually("pgbench's sessions are in the kernel", LIMIT, || {
            let seen = seen(router, login)?;
            Ok((seen.len() == CLIENTS && seen.iter().all(|one| one.in_kernel > 0)).then_some(()))
        })?;
        Ok(work)
    }

    /// Waits for its end, which must not have come yet: every transaction has succeeded.
    pub(super) fn succeeds(self) -> anyhow::Result<()> {
        self.ends_well().map(drop)
    }

    /// The same; when which of its clients had an answer, as far as that was written down.
    pub(super) fn ends_well(self) -> anyhow::Result<Vec<(usize, Duration)>> {
        ensure!(!self.thread.is_finished(), "pgbench ended before its time");
        let finished = self
            .thread
            .join()
            .map_err(|_| anyhow!("pgbench's thread"))??;
        let said = finished.stderr.clone();
        let printed = finished.success()?;
        ensure!(
            printed.contains("number of failed transactions: 0 (0.000%)")
                && !said.contains("aborted"),
            "{printed}{said}"
        );
        answers(&self.log)
    }
}

/// From pgbench's log: client, transaction, microseconds, script, and the time in seconds since
/// 1970 and microseconds.
fn answers(log: &Path) -> anyhow::Result<Vec<(usize, Duration)>> {
    let (directory, prefix) = (log.parent().context("no directory")?, log.file_name());
    let prefix = prefix.context("no name")?.to_string_lossy();
    let mut answers = Vec::new();
    for file in fs::read_dir(directory)? {
        let file = file?;
        if !file.file_name().to_string_lossy().starts_with(&*prefix) {
            continue;
        }
        for line in fs::read_to_string(file.path())?.lines() {
            let numbers: Vec<u64> = line
                .split_whitespace()
                .map(|word| word.parse().context(line.to_owned()))
                .collect::<anyhow::Result<_>>()?;
            let [client, _, _, _, seconds, microseconds, ..] = numbers[..] else {
                bail!("a line of pgbench's log: {line}");
            };
            let at = Duration::from_secs(seconds) + Duration::from_micros(microseconds);
            answers.push((usize::try_from(client)?, at));
        }
    }
    Ok(answers)
}

/// Since 1970, as pgbench reckons.
pub(super) fn now() -> anyhow::Result<Duration> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}
