//! `cargo xtask tidy`: holds the rules of CONTRIBUTING.md and the invariants of ARCHITECTURE.md
//! that can be held by reading the source. It reports everything it finds.

mod functions;
mod lexer;
mod limits;
mod lock;
mod names;
mod promises;
mod shape;
mod source;

use crate::report::{self, Step, heading};
use crate::{process, workspace};
use anyhow::{Result, bail};
use source::Source;
use std::collections::HashSet;
use std::fmt::{self, Display};
use std::process::Command;

/// One violation: where it is, which rule it breaks, and the way out.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1; 0 stands for the file as a whole.
    line: usize,
    rule: &'static str,
    message: String,
}

impl Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            rule,
            message,
        } = self;
        match line {
            0 => write!(out, "{path}: {rule}: {message}"),
            line => write!(out, "{path}:{line}: {rule}: {message}"),
        }
    }
}

/// Documents that a reader looks for first.
const REQUIRED_FILES: [&str; 4] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
];

pub(crate) fn run() -> Result<()> {
    heading("tidy");
    let step = Step::new("rules");
    let sources = sources()?;
    let mut findings = required_files(&sources);
    findings.extend(promises::check(&sources));
    for source in &sources {
        findings.extend(shape::check(source));
        findings.extend(names::check(source));
        findings.extend(functions::check(source));
        findings.extend(limits::check(source));
        findings.extend(lock::check(source));
    }
    findings.sort();
    for finding in &findings {
        report::line(finding);
    }
    if !findings.is_empty() {
        bail!(
            "{} places break a rule; see above, each with the way out",
            findings.len()
        );
    }
    step.done(format_args!("{} files keep them", sources.len()));
    Ok(())
}

/// Every file of the repository, those not committed yet included.
fn sources() -> Result<Vec<Source>> {
    let list = process::output(Command::new("git").current_dir(workspace::root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut sources = Vec::new();
    for path in list.lines() {
        // A file that is deleted but not committed yet is still listed.
        if let Ok(bytes) = std::fs::read(workspace::root().join(path)) {
            sources.push(Source::new(path, &String::from_utf8_lossy(&bytes)));
        }
    }
    let test_only: HashSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        source.is_test |= test_only.contains(&source.path);
    }
    Ok(sources)
}

fn required_files(sources: &[Source]) -> Vec<Finding> {
    REQUIRED_FILES
        .iter()
        .filter(|required| !sources.iter().any(|source| source.path == **required))
        .map(|required| Finding {
            path: (*required).to_owned(),
            line: 0,
            rule: "documents",
            message: "is missing; write it".to_owned(),
        })
        .collect()
}
