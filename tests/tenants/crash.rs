//! Commands that are killed, interrupted, or run at the same time.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs_tests::tenants::Installation;
use pgs_tests::tenants::outcome;

/// From the registry's entry to the tenant's role, in milliseconds.
const MOMENTS: [u64; 6] = [30, 90, 150, 300, 800, 1_600];

/// Docker may be at work for the dead a while: what comes late must be gone too.
const AFTERMATH: Duration = Duration::from_millis(700);

fn nothing_is_left(pgs: &Installation, tenant: &str) -> Result<()> {
    let listed = pgs.list()?;
    ensure!(listed.is_empty(), "{listed:?}");
    sleep(AFTERMATH);
    let in_docker = pgs.in_docker()?;
    ensure!(in_docker.is_empty(), "{in_docker:?}");
    ensure!(!pgs.socket_directory(tenant).exists());
    Ok(())
}

#[test]
fn a_killed_creation_is_undone_by_the_next_command() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_killed_creation_is_undone_by_the_next_command")
    else {
        return Ok(());
    };
    for moment in MOMENTS {
        let mut child = pgs.spawn(&["create", "acme"])?;
        sleep(Duration::from_millis(moment));
        child.kill()?;
        if child.wait()?.success() {
            // Faster than this test: then there is a whole tenant.
            ensure!(pgs.pgs(&["remove", "acme", "--yes"])?.code == 0);
        }
        nothing_is_left(&pgs, "acme")?;
    }
    // And it can be made after all that.
    pgs.create("acme", &[])?;
    Ok(())
}

#[test]
fn an_interrupted_creation_undoes_itself() -> Result<()> {
    let Some(pgs) = Installation::for_test("an_interrupted_creation_undoes_itself") else {
        return Ok(());
    };
    for (moment, signal) in [
        (60, Signal::SIGINT),
        (200, Signal::SIGTERM),
        (900, Signal::SIGINT),
    ] {
        let child = pgs.spawn(&["create", "acme"])?;
        sleep(Duration::from_millis(moment));
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let ended = outcome(&child.wait_with_output()?);
        ensure!(ended.code == 130, "{moment} ms: {ended:?}");
        let in_docker = pgs.in_docker();
        ensure!(
            in_docker.is_err() || in_docker?.is_empty(),
            "left behind at {moment} ms"
        );
        nothing_is_left(&pgs, "acme")?;
    }
    Ok(())
}

#[test]
fn a_killed_removal_is_finished_by_the_next_command() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_killed_removal_is_finished_by_the_next_command")
    else {
        return Ok(());
    };
    for moment in [20, 60, 150] {
        pgs.create("acme", &[])?;
        let mut child = pgs.spawn(&["remove", "acme", "--yes"])?;
        sleep(Duration::from_millis(moment));
        child.kill()?;
        child.wait()?;
        let registered = pgs.list()?;
        if registered.is_empty() {
            nothing_is_left(&pgs, "acme")?;
        } else {
            // Killed before it had said what it was about to do: nothing has happened.
            ensure!(registered[0]["standing"] == "ready", "{registered:?}");
            ensure!(pgs.pgs(&["remove", "acme", "--yes"])?.code == 0);
        }
    }
    Ok(())
}

#[test]
fn of_two_creations_at_once_one_wins() -> Result<()> {
    let Some(pgs) = Installation::for_test("of_two_creations_at_once_one_wins") else {
        return Ok(());
    };
    let children: Vec<_> = (0..3)
        .map(|_| pgs.spawn(&["create", "acme"]))
        .collect::<Result<_>>()?;
    let mut codes = Vec::new();
    for child in children {
        codes.push(outcome(&child.wait_with_output()?).code);
    }
    codes.sort_unstable();
    // 4: it exists already. 6: another command is at work on it.
    ensure!(
        codes[0] == 0 && codes[1..].iter().all(|code| [4, 6].contains(code)),
        "{codes:?}"
    );
    let listed = pgs.list()?;
    ensure!(
        listed.len() == 1 && listed[0]["standing"] == "ready",
        "{listed:?}"
    );
    Ok(())
}
