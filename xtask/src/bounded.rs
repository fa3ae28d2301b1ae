//! A program that is stopped, with all that it has started, when its time is over.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// For a program to end by itself once it was told to.
const GRACE: Duration = Duration::from_secs(20);
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Succeeded,
    Failed,
    Stopped,
}

/// Runs it, and hands over each line of its stdout as it comes; stderr is this terminal's.
pub(crate) fn run(
    command: &mut Command,
    deadline: Instant,
    mut take: impl FnMut(&str),
) -> Result<Ended> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let stdout = child.stdout.take().context("it has no stdout")?;
    let (lines, received) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if lines
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match received.recv_timeout(left) {
            Ok(line) => take(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                stop(&mut child)?;
                return Ok(Ended::Stopped);
            }
        }
    }
    let status = child.wait()?;
    Ok(if status.success() {
        Ended::Succeeded
    } else {
        Ended::Failed
    })
}

/// Ends its process group. It is not reaped yet, so the number is its own.
fn stop(child: &mut Child) -> Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id())?);
    // A group that has just ended by itself is as good.
    killpg(group, Signal::SIGTERM).ok();
    let until = Instant::now() + GRACE;
    while child.try_wait()?.is_none() && Instant::now() < until {
        thread::sleep(POLL_PERIOD);
    }
    killpg(group, Signal::SIGKILL).ok();
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, time: Duration) -> (Ended, Vec<String>) {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let ended = run(&mut command, Instant::now() + time, |line| {
            lines.push(line.to_owned());
        });
        (ended.unwrap(), lines)
    }

    #[test]
    fn what_ends_in_time_is_judged_by_its_status() {
        let (ended, lines) = shell("echo one; echo two", GRACE);
        assert_eq!(ended, Ended::Succeeded);
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(shell("exit 3", GRACE).0, Ended::Failed);
    }

    #[test]
    fn what_does_not_is_stopped_with_its_children() {
        let begun = Instant::now();
        let (ended, lines) = shell("sleep 60 & echo $!; wait", Duration::from_millis(300));
        assert_eq!(ended, Ended::Stopped);
        assert!(begun.elapsed() < GRACE);
        let child = format!("/proc/{}/stat", lines[0]);
        let gone = || std::fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z "));
        while !gone() && begun.elapsed() < GRACE {
            thread::sleep(POLL_PERIOD);
        }
        assert!(gone(), "its child goes on");
    }
}
