//! `cargo xtask test`: sets up what is missing, builds, and runs every test.

use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose, postgres_image};
use crate::{process, workspace};
use anyhow::Result;
use std::time::{Duration, Instant};

/// What the end-to-end tests read.
const BINARY_VARIABLE: &str = "PGS_BIN";
/// How a test begins the line that says why it did not run.
const SKIPPED: &str = "skipped: ";
/// How many lines of what failed tests printed are shown once more, at the end, where somebody
/// who has only the end of a log finds them.
const FAILURE_LINES_MAX: usize = 100;

pub(crate) fn run() -> Result<()> {
    let machine = setup::ensure(Purpose::Test)?;
    heading("build");
    let step = Step::new("pgs");
    let mut build = process::cargo();
    build
        .current_dir(workspace::root())
        .args(["build", "--package", "pgs-userspace"]);
    process::visible(&mut build)?;
    let binary = workspace::target().join("debug/pgs");
    step.done(binary.display());

    heading("test");
    let started = Instant::now();
    let mut command = process::cargo();
    command
        .current_dir(workspace::root())
        .args([
            "test",
            "--workspace",
            "--no-fail-fast",
            "--",
            "--show-output",
        ])
        .env(BINARY_VARIABLE, &binary);
    if let Some(image) = &machine.image {
        command.env(postgres_image::VARIABLE, image);
    }
    let mut tally = Tally::default();
    let succeeded = process::each_line(&mut command, |line| {
        if tally.read(line) {
            report::line(line);
        }
    })?;
    tally.report(succeeded, started.elapsed());
    if !succeeded || tally.failed > 0 || tally.passed == 0 {
        // The closing line is the last, in failure too.
        return Err(report::AlreadySaid.into());
    }
    Ok(())
}

/// What the test binaries said, summed up.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Tests that ran but found that this machine cannot show what they test.
    skipped: Vec<String>,
    failed_tests: Vec<String>,
    /// What they printed, at most [`FAILURE_LINES_MAX`] lines.
    failures: Vec<String>,
    section: Section,
}

/// Which part of a test binary's output the lines at hand belong to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Progress,
    Successes,
    Failures,
}

impl Tally {
    /// Takes one line, and says whether it is worth showing.
    fn read(&mut self, line: &str) -> bool {
        if let Some(reason) = line.strip_prefix(SKIPPED) {
            self.skipped.push(reason.to_owned());
            return false;
        }
        match line {
            // The first heading is followed by output, the second by names; then come failures.
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ => {}
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.section = Section::Progress;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
        }
        if let Some(name) = failed_test(line) {
            self.failed_tests.push(name.to_owned());
        }
        let failed = self.section == Section::Failures && !line.trim().is_empty();
        if failed && self.failures.len() < FAILURE_LINES_MAX {
            self.failures.push(line.to_owned());
        }
        self.section != Section::Successes
    }

    /// The closing line, in the form that every test runner's reader knows, is the last.
    fn report(&self, succeeded: bool, elapsed: Duration) {
        heading("sum");
        for reason in &self.skipped {
            report::line(format_args!("  – skipped: {reason}"));
        }
        for name in &self.failed_tests {
            report::line(format_args!("  ✗ failed: {name}"));
        }
        for line in &self.failures {
            report::line(format_args!("    {line}"));
        }
        let skipped = self.skipped.len();
        let passed = self.passed.saturating_sub(skipped);
        let verdict = if succeeded && self.failed == 0 && passed > 0 {
            "ok"
        } else {
            "FAILED"
        };
        report::line(format_args!(
            "test result: {verdict}. {passed} passed; {} failed; {} ignored; 0 measured; \
             0 filtered out; finished in {:.2}s",
            self.failed,
            self.ignored + skipped,
            elapsed.as_secs_f64(),
        ));
    }
}

/// The name in `test name ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// The number before `word` in `ok. 3 passed; 0 failed; …`.
fn count(counts: &str, word: &str) -> usize {
    counts
        .split(['.', ';'])
        .filter_map(|part| part.trim().strip_suffix(word)?.trim().parse::<usize>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 2 tests\n\
        test a ... ok\n\
        test b ... FAILED\n\
        successes:\n\
        ---- a stdout ----\n\
        chatter\n\
        skipped: a: no Docker\n\
        successes:\n    a\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished\n\
        failures:\n\n---- b stdout ----\nb is not a\n\nfailures:\n    b\n\n\
        test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished";

    #[test]
    fn results_are_summed_and_chatter_is_left_out() {
        let mut tally = Tally::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| tally.read(line)).collect();
        assert_eq!((tally.passed, tally.failed, tally.ignored), (5, 1, 1));
        assert_eq!(tally.skipped, ["a: no Docker"]);
        assert_eq!(shown.len(), 13, "{shown:?}");
        assert_eq!(tally.failed_tests, ["b"]);
        assert_eq!(
            tally.failures,
            [
                "failures:",
                "---- b stdout ----",
                "b is not a",
                "failures:",
                "    b"
            ]
        );
    }
}
