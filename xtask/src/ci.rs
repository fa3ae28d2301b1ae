//! `cargo xtask ci`: what a change must pass before it lands, the quick checks first.

use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose};
use crate::{ebpf, fuzz, process, tidy, workspace};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// By it what this machine cannot run fails instead of being skipped. Where it is set to nothing,
/// that is skipped here too.
const FORBID_SKIP_VARIABLE: &str = "PGS_TEST_FORBID_SKIP";
/// How long the database of advisories may take to arrive.
const ADVISORIES_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run() -> Result<()> {
    let machine = setup::ensure(Purpose::Ci)?;
    format()?;
    clippy()?;
    tidy::run()?;
    let cargo_deny = machine
        .cargo_deny
        .context("set-up for CI left no cargo-deny")?;
    deny(&cargo_deny)?;
    heading("build-ebpf --check");
    match &machine.ebpf {
        Some(tools) => ebpf::check(tools)?,
        None => Step::new("eBPF object").skipped("no sources of core for this rustc; see set-up"),
    }
    fuzz::smoke()?;
    // A process of its own, so that it is exactly what a person would run. What it prints last is
    // the test runner's closing line, and stays the last.
    let mut tests = cargo(&["xtask", "test"]);
    if std::env::var_os(FORBID_SKIP_VARIABLE).is_none() {
        tests.env(FORBID_SKIP_VARIABLE, "1");
    }
    process::visible(&mut tests).map_err(|_| report::AlreadySaid.into())
}

fn format() -> Result<()> {
    heading("fmt");
    let step = Step::new("rustfmt");
    process::visible(&mut cargo(&["fmt", "--all", "--check"]))
        .context("some files are not formatted; run `cargo fmt --all`")?;
    step.done("every file is formatted");
    Ok(())
}

fn clippy() -> Result<()> {
    heading("clippy");
    let step = Step::new("clippy");
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    process::visible(&mut cargo(&arguments))?;
    step.done("no warnings");
    Ok(())
}

fn deny(program: &Path) -> Result<()> {
    heading("deny");
    let step = Step::new("licences, bans, sources");
    let mut check = Command::new(program);
    check
        .current_dir(workspace::root())
        .args(["--locked", "check", "licenses", "bans", "sources"]);
    process::visible(&mut check)?;
    step.done("as deny.toml says");

    let step = Step::new("advisories");
    let mut fetch = Command::new(program);
    fetch
        .current_dir(workspace::root())
        .args(["--locked", "fetch", "db"]);
    if !process::succeeds_within(&mut fetch, ADVISORIES_LIMIT)? {
        step.skipped("the advisory database cannot be reached from here, so it is not consulted");
        return Ok(());
    }
    let mut check = Command::new(program);
    check
        .current_dir(workspace::root())
        .args(["--locked", "check", "advisories"]);
    if process::visible(&mut check).is_err() {
        bail!("a dependency has an advisory; update it, or ignore it in deny.toml with the reason");
    }
    step.done("none of the dependencies has one");
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = process::cargo();
    command.current_dir(workspace::root()).args(arguments);
    command
}
