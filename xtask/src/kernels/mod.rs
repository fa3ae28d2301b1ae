//! `cargo xtask kernels`: the data path under the kernels of other releases.
//!
//! What the kernel path rests on no interface of the kernel promises, so it has to be tried on each
//! that pgs is to run on. QEMU boots one with the files of this machine as its own, read-only: the
//! same programs, the same Docker, another kernel. Without virtualization it emulates the
//! processor, which takes several times as long: no speed that is printed here means anything.

mod guest;
mod package;
mod plan;
mod transcript;

use crate::named::{Named, chosen};
use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose};
use crate::{apt, process, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use guest::Guest;
use plan::{PARTS, Part};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use transcript::{Ended, Transcript};

/// Debian's releases whose kernels are tried. The one after them keeps modules in a package of
/// their own, which [`package::fetch`] does not know.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// Program and the package of Debian that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
    ("mkfs.ext4", "e2fsprogs"),
];

#[derive(Args)]
pub(crate) struct KernelsArgs {
    /// Only the kernel of this release of Debian; can be given several times
    #[arg(long, value_name = "NAME")]
    suite: Vec<String>,
    /// Only the part of this name; can be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Have the processor run the kernel, where /dev/kvm works: faster
    #[arg(long)]
    kvm: bool,
    /// Say which kernels and parts there are, and run none
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &KernelsArgs) -> Result<()> {
    let parts = chosen(&PARTS, &args.only)?;
    let suites = match args.suite.as_slice() {
        [] => SUITES.map(str::to_owned).to_vec(),
        suites => suites.to_vec(),
    };
    if args.list {
        report::line(format_args!("kernels of {}", suites.join(", ")));
        for part in parts {
            report::line(format_args!("{:<12} {}", part.name, part.what));
        }
        return Ok(());
    }
    if !cfg!(target_arch = "x86_64") {
        bail!("kernels are tried on x86-64 alone; this machine is another");
    }
    let machine = setup::ensure(Purpose::Test)?;
    let image = machine.image.context("set-up gave no image")?;
    ensure_programs()?;
    heading("build");
    let directory = workspace::scratch("kernels")?;
    let binaries = Binaries::build()?;
    save_image(&image, &directory)?;
    let mut runs = Vec::new();
    for suite in &suites {
        heading(format_args!("the kernel of {suite}"));
        let kernel = package::fetch(suite)?;
        let guest = Guest::prepare(&directory, &kernel, &binaries, &image, &parts)?;
        let run = guest.run(args.kvm, plan::limit(&parts));
        // One that does not boot keeps no other from being tried.
        runs.push(run.unwrap_or_else(|error| {
            report::line(format_args!("  ✗ {}: {error:#}", kernel.release));
            Transcript::of_nothing(&kernel.release)
        }));
    }
    sum(&parts, &runs)
}

impl Named for Part {
    fn name(&self) -> &'static str {
        self.name
    }
}

fn ensure_programs() -> Result<()> {
    let step = Step::new("QEMU");
    let missing = apt::missing(&PROGRAMS)?;
    if missing.is_empty() {
        step.done("installed");
        return Ok(());
    }
    apt::install(&step, &missing)?;
    step.done(format_args!("{} installed", missing.join(", ")));
    Ok(())
}

/// Programs that play clients are built for release, as pgs is: an emulated processor has no time
/// for others.
const TESTS: [&[&str]; 2] = [
    &[
        "--release",
        "--package=pgs-tests",
        "--test=e2e",
        "--test=keeper",
    ],
    &["--package=pgs-userspace", "--lib"],
];

/// What is run under each kernel.
struct Binaries {
    pgs: PathBuf,
    /// Of each test target its name and program.
    tests: Vec<(String, PathBuf)>,
}

impl Binaries {
    fn build() -> Result<Self> {
        let step = Step::new("pgs and its tests");
        let root = workspace::root();
        let mut pgs = process::cargo();
        pgs.args(["build", "--quiet", "--release", "--package=pgs-userspace"]);
        process::visible(pgs.current_dir(root))?;
        let mut tests = Vec::new();
        for arguments in TESTS {
            let mut cargo = process::cargo();
            cargo.args(["test", "--quiet", "--no-run", "--message-format=json"]);
            cargo.args(arguments).current_dir(root);
            if !process::each_line(&mut cargo, |line| tests.extend(test_program(line)))? {
                bail!("the tests were not built; see above");
            }
        }
        step.done("built");
        let pgs = workspace::target().join("release/pgs");
        Ok(Self { pgs, tests })
    }

    fn test(&self, name: &str) -> Result<&Path> {
        let found = self.tests.iter().find(|(target, _)| target == name);
        let (_, program) = found.with_context(|| format!("cargo built no test `{name}`"))?;
        Ok(program)
    }
}

/// Name and program of a test target, in a line of what cargo says as JSON.
fn test_program(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message["profile"]["test"] == true;
    let program = message["executable"].as_str().filter(|_| is_test)?;
    let kind = message["target"]["kind"][0].as_str()?;
    let name = message["target"]["name"].as_str()?;
    // Library and binary of the package `pgs` have one name.
    let name = if kind == "lib" { "lib" } else { name };
    Some((name.to_owned(), program.into()))
}

/// Docker under the other kernel begins with nothing.
fn save_image(image: &str, directory: &Path) -> Result<()> {
    let step = Step::new("image");
    let path = directory.join("image.tar");
    let saved = Command::new("docker")
        .args(["save", image, "--output"])
        .arg(&path)
        .status()
        .context("start docker")?;
    if !saved.success() {
        bail!("`docker save {image}` failed ({saved})");
    }
    step.done(format_args!("{} MiB", fs::metadata(&path)?.len() >> 20));
    Ok(())
}

/// One line for each kernel, and whether all went well.
fn sum(parts: &[&Part], runs: &[Transcript]) -> Result<()> {
    heading("kernels");
    let names: Vec<_> = parts.iter().map(|part| part.name).collect();
    report::line(format_args!("| kernel | {} |", names.join(" | ")));
    report::line(format_args!("|---|{}", "---|".repeat(names.len())));
    for run in runs {
        let of = |part: &&Part| run.ended(part.name).to_string();
        let cells: Vec<_> = parts.iter().map(of).collect();
        report::line(format_args!("| {} | {} |", run.kernel(), cells.join(" | ")));
    }
    let failed = runs.iter().any(|run| {
        let is_good = |part: &&Part| matches!(run.ended(part.name), Ended::Passed { .. });
        !parts.iter().all(is_good)
    });
    if failed {
        bail!("not everything passed under every kernel; see above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn test_programs_are_found_in_what_cargo_says() {
        let line = |kind: &str, name: &str, test: bool| {
            let target = json!({ "kind": [kind], "name": name });
            let profile = json!({ "test": test });
            json!({ "profile": profile, "target": target, "executable": "/t" }).to_string()
        };
        let found = |line: String| test_program(&line).map(|(name, _)| name);
        assert_eq!(found(line("test", "e2e", true)).as_deref(), Some("e2e"));
        assert_eq!(found(line("lib", "pgs", true)).as_deref(), Some("lib"));
        assert_eq!(found(line("bin", "pgs", false)), None);
        assert_eq!(found("not JSON".to_owned()), None);
    }
}
