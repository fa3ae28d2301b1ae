//! The sources of `core`, which the eBPF target is built from. They must be those of this rustc.

use crate::apt::{Elsewhere, Mirror};
use crate::report::Step;
use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long rustup may take for a component of a few megabytes.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);
const PACKAGE: &str = "rust-src";

/// Whether the sources are there when this returns. It is no error if they cannot be had.
pub(super) fn ensure() -> Result<bool> {
    let step = Step::new(PACKAGE);
    let library = sysroot()?.join("lib/rustlib/src/rust/library");
    let version = rustc_version()?;
    if is_there(&library) {
        step.done(format_args!("sources of core {version} are there"));
        return Ok(true);
    }
    if process::find("rustup").is_some() {
        step.doing("asking rustup for it");
        let mut command = Command::new("rustup");
        process::succeeds_within(command.args(["component", "add", PACKAGE]), RUSTUP_LIMIT)?;
        if is_there(&library) {
            step.done(format_args!("sources of core {version} from rustup"));
            return Ok(true);
        }
    }
    match from_packages(&step, &version, &library) {
        Ok(suite) => {
            step.done(format_args!(
                "sources of core {version} from the package in {suite}"
            ));
            Ok(true)
        }
        Err(error) => {
            step.skipped(format_args!(
                "not to be had ({error:#}); the object in the repository is used as it is"
            ));
            Ok(false)
        }
    }
}

fn is_there(library: &Path) -> bool {
    library.join("core/src/lib.rs").exists() && library.join("Cargo.lock").exists()
}

/// Debian's and Ubuntu's package of the same version holds the same files.
fn from_packages(step: &Step, version: &str, library: &Path) -> Result<String> {
    let mirror = Mirror::of_this_machine(step)?;
    for suite in suites(&mirror) {
        step.doing(format_args!("looking for rust-src {version} in {suite}"));
        let directory = workspace::scratch("rust-src")?.join(&suite);
        let Ok(apt) = Elsewhere::fetch(step, &directory, &mirror, &[&suite]) else {
            continue;
        };
        let versions = apt.versions(PACKAGE)?;
        let Some(found) = versions.iter().find(|found| is_version(found, version)) else {
            continue;
        };
        let archive = apt.download(step, PACKAGE, found)?;
        unpack(&archive, version, library)?;
        fs::remove_dir_all(&directory)?;
        return Ok(suite);
    }
    bail!(
        "neither rustup nor a package of {} has rust-src {version}",
        mirror.origin
    )
}

/// Where newer compilers than a release's own are: backports first, then what comes next.
fn suites(mirror: &Mirror) -> Vec<String> {
    let own = &mirror.codename;
    if mirror.origin == "Ubuntu" {
        return vec![own.clone(), format!("{own}-updates")];
    }
    let mut suites = vec![own.clone(), format!("{own}-backports")];
    for other in ["trixie-backports", "forky", "sid"] {
        if !suites.iter().any(|suite| suite == other) {
            suites.push(other.to_owned());
        }
    }
    suites
}

fn is_version(package: &str, version: &str) -> bool {
    package
        .strip_prefix(version)
        .is_some_and(|rest| rest.starts_with(['+', '-', '~']))
}

fn unpack(archive: &Path, version: &str, library: &Path) -> Result<()> {
    let parent = library
        .parent()
        .context("the library directory has no parent")?;
    fs::create_dir_all(parent)
        .with_context(|| format!("create {} (is the sysroot yours?)", parent.display()))?;
    let mut package = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start dpkg-deb")?;
    let stream = package.stdout.take().context("dpkg-deb has no stdout")?;
    // The four components before `library`: `./usr/src/rustc-…`.
    let unpacked = Command::new("tar")
        .args(["-x", "--no-same-owner", "--strip-components=4", "-C"])
        .arg(parent)
        .arg(format!("./usr/src/rustc-{version}/library"))
        .stdin(stream)
        .status()
        .context("start tar")?;
    let read = package.wait()?;
    if !read.success() || !unpacked.success() {
        bail!(
            "unpacking {} failed: dpkg-deb {read}, tar {unpacked}",
            archive.display()
        );
    }
    if !is_there(library) {
        bail!("{} holds no library of rustc {version}", archive.display());
    }
    Ok(())
}

fn sysroot() -> Result<PathBuf> {
    process::output(Command::new("rustc").args(["--print", "sysroot"])).map(PathBuf::from)
}

/// `1.95.0`: the release of the rustc that builds this workspace.
fn rustc_version() -> Result<String> {
    let text = process::output(Command::new("rustc").arg("-vV"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("release: "))
        .map(str::to_owned)
        .context("`rustc -vV` names no release")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_version_will_do() {
        assert!(is_version("1.95.0+dfsg1-2~bpo13+1", "1.95.0"));
        assert!(!is_version("1.95.01-1", "1.95.0"));
        assert!(!is_version("1.94.1+dfsg1-1", "1.95.0"));
    }
}
