//! Where suites come from: the distribution's source packages and cargo's, as this machine's own
//! package managers are set up to reach them.

use crate::apt::{Elsewhere, Mirror};
use crate::report::Step;
use crate::{process, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Suites that may have a source package, the newest last; `versions` picks.
pub(super) const DEBIAN_SUITES: [&str; 2] = ["forky", "sid"];

/// Suites whose older sources will do for a driver, where the mirror has none of a newer.
const OLDER_SUITES: [&str; 2] = ["trixie", "bookworm"];

/// A directory of one suite's own that stays from run to run.
pub(super) fn scratch(name: &str) -> Result<PathBuf> {
    workspace::scratch(&format!("conformance/{name}"))
}

/// The upstream source of a Debian source package, unpacked, and its version. `accepts` says which
/// versions will do.
pub(super) fn debian_source(
    step: &Step,
    package: &str,
    accepts: impl Fn(&str) -> bool,
) -> Result<(PathBuf, String)> {
    let directory = scratch(package)?;
    let marker = directory.join("version");
    if let Ok(version) = fs::read_to_string(&marker)
        && accepts(&version)
    {
        return Ok((directory.join("source"), version));
    }
    let mirror = Mirror::of_this_machine(step)?;
    let mut seen = Vec::new();
    for suite in DEBIAN_SUITES.into_iter().chain(OLDER_SUITES) {
        step.doing(format_args!(
            "looking for the source of {package} in {suite}"
        ));
        let at = directory.join("apt").join(suite);
        let Ok(apt) = Elsewhere::fetch_sources(step, &at, &mirror, &[suite]) else {
            seen.push(format!("{suite} cannot be had"));
            continue;
        };
        for version in apt.source_versions(package)? {
            if !accepts(&version) {
                seen.push(format!("{suite} has {version}"));
                continue;
            }
            // An index may name files that its mirror does not hold; another suite's may be there.
            let found = apt
                .download_source(step, package, &version)
                .and_then(|files| unpack_original(&files, &directory.join("source")));
            match found {
                Ok(()) => {
                    fs::write(&marker, &version)?;
                    return Ok((directory.join("source"), version));
                }
                Err(error) => seen.push(format!("{suite} names {version}: {error}")),
            }
        }
    }
    bail!(
        "no suite of the machine's mirror has a source of {package} that will do ({})",
        seen.join(", ")
    )
}

/// The main upstream archive among a source package's files.
fn unpack_original(files: &Path, into: &Path) -> Result<()> {
    let archive = fs::read_dir(files)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(".orig.tar."))
        .with_context(|| {
            format!(
                "the mirror names an upstream archive but has none; see {}",
                files.display()
            )
        })?;
    unpack(&archive, into)
}

/// An archive whose one top directory becomes `into`; what was there is replaced.
pub(super) fn unpack(archive: &Path, into: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    fs::create_dir_all(into)?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--no-same-owner", "--strip-components=1", "-f"])
        .arg(archive)
        .arg("-C")
        .arg(into);
    process::output(&mut tar).map(drop)
}

/// The source of a crate as cargo has it, copied so that it can be changed and built on its own.
/// Copied anew every time: what a run changed must not meet the next one.
pub(super) fn crate_source(step: &Step, name: &str, version: &str) -> Result<PathBuf> {
    let directory = scratch(name)?;
    let asking = directory.join("asking");
    fs::create_dir_all(asking.join("src"))?;
    fs::write(asking.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"asking\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n\
         [dependencies]\n{name} = {{ version = \"={version}\", default-features = false }}\n\n\
         [workspace]\n"
    );
    fs::write(asking.join("Cargo.toml"), manifest)?;
    step.doing(format_args!("fetching {name} {version} with cargo"));
    let mut vendor = process::cargo();
    vendor
        .current_dir(&asking)
        .args(["metadata", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&process::output(&mut vendor)?)?;
    let found = metadata["packages"].as_array().and_then(|packages| {
        packages
            .iter()
            .find(|package| package["name"] == name && package["version"] == version)
    });
    let manifest = found
        .and_then(|package| package["manifest_path"].as_str())
        .with_context(|| format!("cargo fetched no {name} {version}"))?;
    let original = Path::new(manifest)
        .parent()
        .context("a manifest without a directory")?;
    let copy = directory.join("source");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    process::output(Command::new("cp").arg("-r").arg(original).arg(&copy))?;
    ensure!(
        copy.join("tests").is_dir(),
        "{name} {version} comes without its tests"
    );
    // The compiler that its authors develop with need not be here.
    let toolchain = copy.join("rust-toolchain.toml");
    if toolchain.exists() {
        fs::remove_file(&toolchain)?;
    }
    // Else it would be taken for a forgotten member of the workspace around it.
    let manifest = copy.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)? + "\n[workspace]\n";
    fs::write(&manifest, text)?;
    Ok(copy)
}

/// Replaces texts in every file with that ending under `directory`; each must occur somewhere.
pub(super) fn replace(directory: &Path, ending: &str, pairs: &[(&str, &str)]) -> Result<()> {
    let mut met = vec![false; pairs.len()];
    replace_under(directory, ending, pairs, &mut met)?;
    for ((from, _), met) in pairs.iter().zip(met) {
        ensure!(
            met,
            "`{from}` is nowhere under {}: another version?",
            directory.display()
        );
    }
    Ok(())
}

fn replace_under(
    directory: &Path,
    ending: &str,
    pairs: &[(&str, &str)],
    met: &mut [bool],
) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            replace_under(&path, ending, pairs, met)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            let mut text = fs::read_to_string(&path)?;
            for ((from, to), met) in pairs.iter().zip(met.iter_mut()) {
                *met |= text.contains(from);
                text = text.replace(from, to);
            }
            fs::write(&path, text)?;
        }
    }
    Ok(())
}
