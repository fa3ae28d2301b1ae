//! Running a suite's program: its output in a file, its time bounded.

use super::outcome::{Tests, Verdict};
use crate::report::Step;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL_PERIOD: Duration = Duration::from_millis(100);
/// How often a program that runs for long is reported.
const REPORT_PERIOD: Duration = Duration::from_secs(30);

/// Runs it to its end, with what it prints at the end of the file `log`. Test programs end with an
/// error when a test fails, so the status is for the caller to judge.
pub(super) fn run(
    step: &Step,
    command: &Command,
    log: &Path,
    limit: Duration,
) -> Result<ExitStatus> {
    if let Some(parent) = log.parent() {
        fs::create_dir_all(parent)?;
    }
    let output = File::options().create(true).append(true).open(log)?;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut wrapped = dying_with_us(command);
    let mut child = wrapped
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // What it starts itself must end with it when its time is up.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start `{name}`"))?;
    let began = Instant::now();
    let mut reported = began;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if began.elapsed() >= limit {
            killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
            child.wait()?;
            bail!(
                "`{name}` did not end within {limit:?}; it printed {}",
                log.display()
            );
        }
        if reported.elapsed() >= REPORT_PERIOD {
            step.progress("still running");
            reported = Instant::now();
        }
        thread::sleep(POLL_PERIOD);
    }
}

/// Runs it and gives what it printed, which is then all that the file `log` holds. How it ended is
/// not asked: what its tests came to is in what it printed.
pub(super) fn printed(
    step: &Step,
    command: &Command,
    log: &Path,
    limit: Duration,
) -> Result<String> {
    logged(log, || run(step, command, log, limit).map(drop))
}

/// Runs what builds a suite's tests.
pub(super) fn built(step: &Step, command: &Command, log: &Path, limit: Duration) -> Result<()> {
    logged(log, || {
        let status = run(step, command, log, limit)?;
        ensure!(
            status.success(),
            "its tests do not build; see {}",
            log.display()
        );
        Ok(())
    })
    .map(drop)
}

/// A log that holds nothing of earlier runs, and its text after `act`.
pub(super) fn logged(log: &Path, act: impl FnOnce() -> Result<()>) -> Result<String> {
    if log.exists() {
        fs::remove_file(log)?;
    }
    act()?;
    let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The same command, which the kernel ends if this process dies without ending it.
pub(super) fn dying_with_us(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--pdeathsig", "TERM", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// What the programs of this repository print: `ok <name>` or `not ok <name>: <why>`, a line each.
pub(super) fn plain_results(text: &str) -> Tests {
    let result = |line: &str| {
        if let Some(rest) = line.strip_prefix("not ok ") {
            let name = rest.split(": ").next().unwrap_or(rest);
            return Some((name.to_owned(), Verdict::Failed));
        }
        let name = line.strip_prefix("ok ")?;
        Some((name.to_owned(), Verdict::Passed))
    };
    text.lines().filter_map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_results_are_read() {
        let tests = plain_results("ok copy in\nnot ok cancel: it said: no\nnoise\n");
        assert_eq!(tests.len(), 2);
        assert_eq!(tests["copy in"], Verdict::Passed);
        assert_eq!(tests["cancel"], Verdict::Failed);
    }
}
