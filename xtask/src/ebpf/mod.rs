//! `cargo xtask build-ebpf`: the eBPF object from source, the same bytes on every machine.
//!
//! Stable rustc can build for the BPF target when it builds `core` itself, which is unstable:
//! `RUSTC_BOOTSTRAP` is set for that inner cargo only.

mod strip;

use crate::report::{Step, heading};
use crate::setup::{self, EbpfTools, Purpose};
use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "pgs-ebpf";
const BINARY: &str = "pgs-bpf";
const TARGET: &str = "bpfel-unknown-none";
const PREBUILT: &str = "pgs-ebpf/prebuilt/pgs.bpf.o";
/// What cargo puts between arguments in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

#[derive(Args)]
pub(crate) struct BuildEbpfArgs {
    /// Compare what the source builds to with the object in the repository, and change nothing
    #[arg(long, conflicts_with = "log")]
    check: bool,
    /// Build with the log lines of the program, to a file for PGS_EBPF_OBJECT
    #[arg(long)]
    log: bool,
}

pub(crate) fn run(args: &BuildEbpfArgs) -> Result<()> {
    let machine = setup::ensure(Purpose::BuildEbpf)?;
    heading("build-ebpf");
    let Some(tools) = machine.ebpf else {
        bail!(
            "the eBPF object cannot be built here: there are no sources of core for this rustc; \
             the one in the repository ({PREBUILT}) still works"
        );
    };
    match (args.check, args.log) {
        (true, _) => check(&tools),
        (false, true) => build_logging(&tools),
        (false, false) => build_prebuilt(&tools),
    }
}

/// Fails if the object in the repository is not what the source builds to.
pub(crate) fn check(tools: &EbpfTools) -> Result<()> {
    let step = Step::new("eBPF object");
    let built = build(&step, tools, &[])?;
    let path = workspace::root().join(PREBUILT);
    let present = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    if built != present {
        bail!(
            "{PREBUILT} is not what its source builds to: in the repository {}, from source {}; \
             run `cargo xtask build-ebpf` and commit the result",
            hash(&present),
            hash(&built)
        );
    }
    step.done(format_args!(
        "{PREBUILT} is what the source builds to, {}",
        hash(&built)
    ));
    Ok(())
}

fn build_prebuilt(tools: &EbpfTools) -> Result<()> {
    let step = Step::new("eBPF object");
    let object = build(&step, tools, &[])?;
    let path = workspace::root().join(PREBUILT);
    let same = fs::read(&path).is_ok_and(|present| present == object);
    write(&path, &object)?;
    let change = if same {
        "unchanged"
    } else {
        "changed: commit it"
    };
    step.done(format_args!(
        "{PREBUILT}, {} bytes, {}, {change}",
        object.len(),
        hash(&object)
    ));
    Ok(())
}

fn build_logging(tools: &EbpfTools) -> Result<()> {
    let step = Step::new("eBPF object with logs");
    let object = build(&step, tools, &["--features", "log"])?;
    let path = workspace::target().join("xtask/pgs-log.bpf.o");
    write(&path, &object)?;
    step.done(format_args!(
        "run pgs, built with the feature `ebpf-log`, with PGS_EBPF_OBJECT={}",
        path.display()
    ));
    Ok(())
}

/// The object's bytes, without debug information.
fn build(step: &Step, tools: &EbpfTools, features: &[&str]) -> Result<Vec<u8>> {
    step.doing("building core and the program for the BPF target");
    let target = workspace::scratch("ebpf")?;
    // The directories of the registry must be there before their paths are remapped.
    let mut fetch = process::cargo();
    process::followed(
        step,
        fetch
            .current_dir(workspace::root())
            .args(["fetch", "--locked"]),
    )?;
    let mut command = process::cargo();
    command
        .current_dir(workspace::root())
        .args(["build", "--locked", "--release", "--package", PACKAGE])
        .args(["--target", TARGET, "-Z", "build-std=core"])
        .args(features)
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags()?)
        .env("PATH", path_with(&tools.bpf_linker)?)
        // bpf-linker optimises the whole program; the host's profile must not change the bytes.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_INCREMENTAL", "0");
    // What an outer cargo says about the host's compiler does not hold for this build.
    for variable in [
        "RUSTFLAGS",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        command.env_remove(variable);
    }
    process::followed(step, &mut command)?;
    let path = target.join(TARGET).join("release").join(BINARY);
    let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    strip::debug_information(&object)
}

/// Compiler flags: BTF, and no path of this machine in the object.
fn rustflags() -> Result<OsString> {
    let mut flags = vec![
        // Fixed, so that the object is the same whatever machine builds it.
        OsString::from("--cfg=bpf_target_arch=\"x86_64\""),
        OsString::from("-Clink-arg=--btf"),
        // Atomic instructions that give back the former value; kernels from 5.12 on know them.
        OsString::from("-Ctarget-cpu=v3"),
    ];
    for (from, to) in remapped()? {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join(SEPARATOR.as_ref()))
}

/// Directories whose paths would differ between machines. The last prefix that fits is used.
fn remapped() -> Result<Vec<(PathBuf, &'static str)>> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut remapped = vec![
        (cargo.clone(), "/cargo"),
        (PathBuf::from(sysroot).join("lib/rustlib/src/rust"), "/rust"),
        (workspace::root().to_owned(), "/pgs"),
    ];
    // The name of a registry's directory is derived from its address and differs with mirrors.
    if let Ok(registries) = fs::read_dir(cargo.join("registry/src")) {
        let paths = registries.filter_map(Result::ok).map(|entry| entry.path());
        remapped.extend(paths.map(|path| (path, "/cargo/crates")));
    }
    Ok(remapped)
}

/// rustc starts the linker by name.
fn path_with(linker: &Path) -> Result<OsString> {
    let directory = linker
        .parent()
        .context("the linker has no directory")?
        .to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(directory).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(all)?)
}

fn write(path: &Path, object: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, object).with_context(|| format!("write {}", path.display()))
}

/// The first 16 hexadecimal digits of the SHA-256, enough to tell two objects apart.
fn hash(object: &[u8]) -> String {
    Sha256::digest(object)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
