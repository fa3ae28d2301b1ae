//! `pgs psql` on a terminal.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::termios::LocalFlags;
use nix::sys::termios::tcgetattr;
use nix::unistd::Pid;
use pgs_tests::tenants::Installation;

const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

fn until(what: &str, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !happened()? {
        ensure!(begin.elapsed() < DEADLINE, "not {what}");
        sleep(POLL);
    }
    Ok(())
}

/// Whether what is typed goes on byte by byte, Ctrl-C too.
fn is_raw(terminal: impl AsFd) -> Result<bool> {
    let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
    Ok(!tcgetattr(terminal)?.local_flags.intersects(cooked))
}

#[test]
fn a_psql_that_is_ended_leaves_the_terminal_as_it_was() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_psql_that_is_ended_leaves_the_terminal_as_it_was")
    else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let pty = openpty(None, None)?;
        let before = tcgetattr(&pty.slave)?;
        let end = || -> Result<OwnedFd> { Ok(pty.slave.try_clone()?) };
        let mut psql = pgs
            .command(&["psql", "acme"])?
            .stdin(end()?)
            .stdout(end()?)
            .spawn()?;
        until("raw", || is_raw(&pty.slave))?;
        kill(Pid::from_raw(i32::try_from(psql.id())?), signal)?;
        until("ended", || Ok(psql.try_wait()?.is_some()))?;
        let code = psql.wait()?.code();
        ensure!(code == Some(130), "{signal}: {code:?}");
        ensure!(tcgetattr(&pty.slave)? == before, "{signal}: still raw");
    }
    Ok(())
}
