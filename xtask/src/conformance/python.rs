//! What Python's suites share: an environment, source archives, and reading what pytest prints.

use super::fetch;
use super::outcome::{Tests, Verdict};
use crate::process;
use crate::report::Step;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A virtual environment in `directory`, with these packages in it.
pub(super) fn environment(step: &Step, directory: &Path, packages: &[&str]) -> Result<PathBuf> {
    let directory = &directory.join("python");
    let python = directory.join("bin/python");
    if !python.exists() {
        step.doing("making a Python environment");
        fs::create_dir_all(directory)?;
        let mut make = Command::new("python3");
        process::output(make.args(["-m", "venv"]).arg(directory)).context(
            "a Python environment cannot be made; `sudo apt-get install python3-venv` may help",
        )?;
    }
    let mut install = Command::new(&python);
    install
        .args(["-m", "pip", "install", "--quiet"])
        .args(packages);
    process::followed(step, &mut install)?;
    Ok(python)
}

/// The source archive of a package, unpacked in `directory`.
pub(super) fn source_archive(
    step: &Step,
    python: &Path,
    directory: &Path,
    package: &str,
    version: &str,
) -> Result<PathBuf> {
    let archives = directory.join("archives");
    let find = || {
        let entries = fs::read_dir(&archives).into_iter().flatten();
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        // Its name has `_` or `-`, as its builder liked.
        paths.find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.replace('_', "-") == format!("{package}-{version}.tar.gz")
        })
    };
    if find().is_none() {
        let mut download = Command::new(python);
        download
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            // Of this one alone: pip would build its build tools from source, too.
            .args(["--no-binary", package])
            .arg(format!("{package}=={version}"))
            .arg("--dest")
            .arg(&archives);
        process::followed(step, &mut download)?;
    }
    let archive = find().with_context(|| format!("pip left no archive of {package} {version}"))?;
    let source = directory.join("source");
    fetch::unpack(&archive, &source)?;
    Ok(source)
}

/// A run of pytest in `source` that prints how each test ended.
pub(super) fn pytest(python: &Path, source: &Path) -> Command {
    let mut pytest = Command::new(python);
    pytest
        .current_dir(source)
        .args(["-m", "pytest", "-p", "no:cacheprovider"])
        .args(["-q", "-rA", "--tb=short"]);
    pytest
}

/// What is in its summary, by test; the name of the run goes before.
pub(super) fn results(run: &str, text: &str) -> Tests {
    let found = text.lines().filter_map(result);
    found
        .map(|(test, verdict)| (format!("{run}: {test}"), verdict))
        .collect()
}

/// `PASSED test/engine/test_x.py::Class::test`.
fn result(line: &str) -> Option<(String, Verdict)> {
    let (word, rest) = line.split_once(' ')?;
    let verdict = match word {
        "PASSED" | "XFAIL" => Verdict::Passed,
        "FAILED" | "ERROR" | "XPASS" => Verdict::Failed,
        _ => return None,
    };
    // What went wrong follows the name.
    let name = rest.split(" - ").next().unwrap_or(rest);
    (name.starts_with("test/") || name.starts_with("tests/")).then(|| (name.to_owned(), verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_pytest_is_read() {
        let line = "FAILED test/engine/test_x.py::A::b - AssertionError: PASSED - no";
        let name = "test/engine/test_x.py::A::b".to_owned();
        assert_eq!(result(line), Some((name.clone(), Verdict::Failed)));
        assert_eq!(
            result(&format!("PASSED {name}")),
            Some((name, Verdict::Passed))
        );
        assert_eq!(result("12 passed in 3s"), None);
        let own = results(
            "own",
            "PASSED tests/test_a.py::B::c\nSKIPPED [1] tests/x.py",
        );
        assert_eq!(own["own: tests/test_a.py::B::c"], Verdict::Passed);
        assert_eq!(own.len(), 1);
    }
}
