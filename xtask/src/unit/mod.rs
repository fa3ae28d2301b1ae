//! `cargo xtask unit`: the unit of `packaging/` under a systemd that is booted for it.
//!
//! No machine needs to run systemd for that: a root file system with one is bootstrapped once, and
//! booted in namespaces of its own. What it cannot do here it says, and is skipped.

mod checks;
mod machine;
mod passthrough;
mod rootfs;
mod traffic;

use crate::report::{Step, heading, line};
use crate::setup::postgres_image;
use crate::{apt, image, process, workspace};
use anyhow::Result;
use checks::Checks;
use clap::Args;
use machine::Machine;
use rootfs::Rootfs;
use std::path::PathBuf;

/// Where the kernel offers control groups of the version that systemd wants.
const GROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

#[derive(Args)]
pub(crate) struct UnitArgs {
    /// Bootstrap the root file system anew
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &UnitArgs) -> Result<()> {
    heading("the unit under systemd");
    let step = Step::new("systemd");
    let groups = match possible() {
        Ok(groups) => groups,
        Err(why) => {
            step.skipped(why);
            return Ok(());
        }
    };
    let step = Step::new("pgs");
    process::visible(process::cargo().current_dir(workspace::root()).args([
        "build",
        "--quiet",
        "--package",
        "pgs-userspace",
    ]))?;
    let binary = workspace::target().join("debug/pgs");
    step.done(binary.display());
    let tag = match std::env::var(postgres_image::VARIABLE) {
        Ok(tag) if !tag.is_empty() => tag,
        _ => {
            image::ensure(image::TAG, false)?;
            image::TAG.to_owned()
        }
    };
    let rootfs = Rootfs::ensure(args.force)?;
    let machine = Machine::boot(&groups, &rootfs, &binary)?;
    let result = Checks::new(&machine, &binary, tag).run();
    if result.is_err() {
        line(machine.journal());
    }
    machine.end()?;
    result
}

/// Where this machine's control groups lie, or why no systemd can be booted here.
fn possible() -> Result<PathBuf, String> {
    if !apt::can_install() {
        return Err("not root on Debian or Ubuntu: a systemd cannot be bootstrapped".to_owned());
    }
    let is_unified = |path: &PathBuf| path.join("cgroup.controllers").exists();
    match GROUPS.into_iter().map(PathBuf::from).find(is_unified) {
        Some(path) => Ok(path),
        None => Err("this machine has no control groups of version 2".to_owned()),
    }
}
