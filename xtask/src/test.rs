//! `cargo xtask test`: sets up what is missing, builds, and runs every test.

use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose, postgres_image};
use crate::{process, workspace};
use anyhow::Result;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the end-to-end tests read.
const BINARY_VARIABLE: &str = "PGS_BIN";
/// How a test begins the line that says why it did not run.
const SKIPPED: &str = "skipped: ";

pub(crate) fn run() -> Result<()> {
    let machine = setup::ensure(Purpose::Test)?;
    heading("build");
    let step = Step::new("pgs");
    let mut build = Command::new("cargo");
    build
        .current_dir(workspace::root())
        .args(["build", "--package", "pgs-userspace"]);
    process::visible(&mut build)?;
    let binary = workspace::target().join("debug/pgs");
    step.done(binary.display());

    heading("test");
    let started = Instant::now();
    let mut command = Command::new("cargo");
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
    /// Whether the lines at hand are the output of tests that passed.
    in_successes: bool,
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
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
        }
        !self.in_successes
    }

    /// The closing line, in the form that every test runner's reader knows, is the last.
    fn report(&self, succeeded: bool, elapsed: Duration) {
        heading("sum");
        for reason in &self.skipped {
            report::line(format_args!("  – skipped: {reason}"));
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
        successes:\n\
        ---- a stdout ----\n\
        chatter\n\
        skipped: a: no Docker\n\
        successes:\n    a\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished\n\
        test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished";

    #[test]
    fn results_are_summed_and_chatter_is_left_out() {
        let mut tally = Tally::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| tally.read(line)).collect();
        assert_eq!((tally.passed, tally.failed, tally.ignored), (5, 1, 1));
        assert_eq!(tally.skipped, ["a: no Docker"]);
        assert_eq!(shown.len(), 4, "{shown:?}");
    }
}
