//! Running other programs: captured, followed with progress, or with the terminal handed over.
//!
//! No program gets a stdin: nothing here may wait for an answer.

use crate::report::Step;
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// How many of a failed program's last lines are shown.
const TAIL_LINES: usize = 30;
/// How often a running program is reported on a terminal, and elsewhere.
const TERMINAL_PERIOD: Duration = Duration::from_millis(500);
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The path of `program`, if one of the directories of PATH (or sbin) has it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The cargo that runs this, or the one on PATH.
///
/// It does not see by which variables the outer one describes xtask to itself. Build scripts that
/// look at them, as `ring`'s does, would be run again, and all that depends on them built anew,
/// whenever a build by xtask follows one from a shell.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(describes_a_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Whether cargo sets a variable of this name for one package and not for all
/// (<https://doc.rust-lang.org/cargo/reference/environment-variables.html>).
fn describes_a_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
        || [
            "CARGO_CRATE_NAME",
            "CARGO_BIN_NAME",
            "CARGO_PRIMARY_PACKAGE",
        ]
        .contains(&variable)
}

/// Runs to the end and gives stdout, trimmed. A failure carries the last lines of stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{shown}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{shown}` failed ({}): {}",
            output.status,
            last_lines(&stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether the program ran and was satisfied. What it prints is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Like `succeeds`, but a program that has not ended after `limit` is killed and counts as failed.
pub(crate) fn succeeds_within(command: &mut Command, limit: Duration) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start `{}`", shown(command)))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs with this terminal's stdout and stderr.
pub(crate) fn visible(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start `{shown}`"))?;
    require(status, &shown, "see its output above")
}

/// Runs to the end and hands over each line of stdout as it comes; stderr is this terminal's.
/// Says whether the program succeeded.
pub(crate) fn each_line(command: &mut Command, mut take: impl FnMut(&str)) -> Result<bool> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            take(&String::from_utf8_lossy(&line?));
        }
    }
    Ok(child
        .wait()
        .with_context(|| format!("wait for `{shown}`"))?
        .success())
}

/// Runs a long program, showing how long it has run and what it said last.
pub(crate) fn followed(step: &Step, command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let tail = follow(step, &mut child);
    let status = child
        .wait()
        .with_context(|| format!("wait for `{shown}`"))?;
    step.progress_end();
    require(status, &shown, &tail)
}

fn require(status: ExitStatus, shown: &str, detail: &str) -> Result<()> {
    if !status.success() {
        bail!("`{shown}` failed ({status}): {detail}");
    }
    Ok(())
}

fn follow(step: &Step, child: &mut Child) -> String {
    let (lines, received) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        forward_lines(stdout, lines.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        forward_lines(stderr, lines.clone());
    }
    drop(lines);
    let period = if std::io::stdout().is_terminal() {
        TERMINAL_PERIOD
    } else {
        LOG_PERIOD
    };
    let mut tail = VecDeque::new();
    let mut reported = Instant::now();
    loop {
        match received.recv_timeout(period) {
            Ok(line) => {
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if reported.elapsed() >= period {
            step.progress(tail.back().map_or("", String::as_str));
            reported = Instant::now();
        }
    }
    Vec::from(tail).join("\n    ")
}

fn forward_lines(from: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line);
            // Progress bars rewrite one line: the last state of it is what counts.
            let last = text
                .trim_end()
                .rsplit('\r')
                .next()
                .unwrap_or_default()
                .to_owned();
            if lines.send(last).is_err() {
                return;
            }
        }
    });
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n    ")
}

/// The command as a person would type it, for messages.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_its_last_words() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh -c") && text.contains("why") && text.contains('3'),
            "{text}"
        );
    }

    #[test]
    fn cargo_is_not_told_that_it_builds_xtask() {
        let mut shell = Command::new("sh");
        // What `cargo test` has set for this test.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        for (name, value) in cargo().get_envs() {
            assert_eq!(value, None);
            shell.env_remove(name);
        }
        let left = output(shell.args(["-c", "env | grep ^CARGO_PKG_ || true"])).unwrap();
        assert_eq!(left, "");
        assert!(!describes_a_package("CARGO_TARGET_DIR"));
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let started = Instant::now();
        let ended = succeeds_within(Command::new("sleep").arg("30"), Duration::from_millis(200));
        assert!(!ended.unwrap());
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn sh_is_found_and_nonsense_is_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
