//! How a command ends that waits for somebody: a password that nobody gives, a reader that is gone.

use std::io::BufRead as _;
use std::io::BufReader;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs_tests::tenants::Installation;

const PROMPT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// For a command to have begun to wait, or to have ended if it is to.
const SETTLES: Duration = Duration::from_millis(500);

/// The exit code, once it has ended.
fn code(child: &mut Child) -> Result<Option<i32>> {
    let begin = Instant::now();
    while begin.elapsed() < PROMPT {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn send(child: &Child, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
}

/// `pgs` through a shell that ignores these signals first, as `nohup` does, and that waits for a
/// password on its standard input.
fn waiting(pgs: &Installation, ignored: &str) -> Result<Child> {
    let waits = pgs.command(&["password", "acme", "--password-file", "-"])?;
    let mut shell = Command::new(waits.get_program());
    let mut arguments = waits.get_args();
    let default_signals = arguments.next().context("no arguments")?;
    shell
        .arg(default_signals)
        .args(["sh", "-c", &format!("trap '' {ignored}; exec \"$@\""), "sh"])
        .args(arguments)
        .envs(
            waits
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = shell.spawn()?;
    sleep(SETTLES);
    Ok(child)
}

#[test]
fn a_command_that_waits_for_a_password_can_be_ended() -> Result<()> {
    let test = "a_command_that_waits_for_a_password_can_be_ended";
    let Some(pgs) = Installation::for_test(test) else {
        return Ok(());
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut child = waiting(&pgs, "USR1")?;
        send(&child, signal)?;
        let code = code(&mut child)?;
        ensure!(code == Some(130), "{signal}: {code:?}");
    }
    Ok(())
}

#[test]
fn a_signal_that_was_ignored_before_ends_nothing() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_signal_that_was_ignored_before_ends_nothing") else {
        return Ok(());
    };
    let mut child = waiting(&pgs, "HUP INT")?;
    for signal in [Signal::SIGHUP, Signal::SIGINT] {
        send(&child, signal)?;
        sleep(SETTLES);
        ensure!(child.try_wait()?.is_none(), "{signal} ends it");
    }
    send(&child, Signal::SIGTERM)?;
    let code = code(&mut child)?;
    ensure!(code == Some(130), "{code:?}");
    Ok(())
}

#[test]
fn who_reads_no_more_ends_what_is_printed() -> Result<()> {
    let Some(pgs) = Installation::for_test("who_reads_no_more_ends_what_is_printed") else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    let first_line = |child: &mut Child| -> Result<String> {
        let mut line = String::new();
        // Read, and closed.
        let output = child.stdout.take().context("no output")?;
        BufReader::with_capacity(64, output).read_line(&mut line)?;
        Ok(line)
    };
    let mut logs = pgs.spawn(&["logs", "acme", "-f"])?;
    ensure!(!first_line(&mut logs)?.is_empty(), "nothing is logged");
    let logged = "DO $$ BEGIN RAISE WARNING 'said to nobody'; END $$";
    for _ in 0..2 {
        let said = pgs.pgs(&["psql", "acme", "--", "-Xqc", logged])?;
        ensure!(said.code == 0, "{said:?}");
        sleep(SETTLES);
    }
    let logs = code(&mut logs)?;
    ensure!(logs == Some(0), "logs: {logs:?}");

    let large = "SELECT repeat('x', 1000) FROM generate_series(1, 50000)";
    let mut psql = pgs.spawn(&["psql", "acme", "--", "-XAtqc", large])?;
    let line = first_line(&mut psql)?;
    ensure!(line.starts_with("xxx"), "{line:?}");
    let psql = code(&mut psql)?;
    ensure!(psql == Some(141), "psql: {psql:?}");
    Ok(())
}
