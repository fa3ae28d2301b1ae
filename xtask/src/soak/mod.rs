//! `cargo xtask soak`: the tests that are short elsewhere, in their complete form.
//!
//! They are the scenarios of `tests/e2e`, told by one variable to go on for longer. Nothing is
//! written but the report.

mod plan;

use crate::bounded::Ended;
use crate::named::{Named, chosen};
use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose, postgres_image};
use crate::{bounded, process, workspace};
use anyhow::{Result, bail};
use clap::Args;
use plan::{PARTS, Part};
use std::time::{Duration, Instant};

/// Read by `pgs_tests::length`.
const VARIABLE: &str = "PGS_TEST_SOAK";
/// What the end-to-end tests read besides.
const BINARY_VARIABLE: &str = "PGS_BIN";

#[derive(Args)]
pub(crate) struct SoakArgs {
    /// Minutes that all of it may take; what could go on for ever shares what the rest leaves
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// Only the part of this name; can be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Say which parts there are, and run none
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    let parts = chosen(&PARTS, &args.only)?;
    if args.list {
        for part in parts {
            report::line(format_args!("{:<16} {}", part.name, part.what));
        }
        return Ok(());
    }
    let machine = setup::ensure(Purpose::Test)?;
    heading("build");
    for release in [false, true] {
        if parts.iter().any(|part| part.release == release) {
            build(release)?;
        }
    }
    heading(format_args!("soak, for at most {} min", args.minutes));
    let deadline = Instant::now() + Duration::from_secs(args.minutes * 60);
    let mut results = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let time = plan::share(
            deadline.saturating_duration_since(Instant::now()),
            &parts[index..],
        );
        results.push((part, one(part, time, deadline, machine.image.as_deref())?));
    }
    sum(&results)
}

impl Named for Part {
    fn name(&self) -> &'static str {
        self.name
    }
}

fn build(release: bool) -> Result<()> {
    let step = Step::new(if release {
        "pgs and its tests, for release"
    } else {
        "pgs and its tests"
    });
    for arguments in [
        &["build", "--package", "pgs-userspace"][..],
        &[
            "test",
            "--package",
            "pgs-tests",
            "--test",
            "e2e",
            "--no-run",
        ],
    ] {
        let mut cargo = process::cargo();
        cargo.current_dir(workspace::root()).args(arguments);
        cargo.args(release.then_some("--release"));
        process::visible(&mut cargo)?;
    }
    step.done("built");
    Ok(())
}

/// What became of a part.
enum Outcome {
    Passed(Duration),
    Failed(Duration),
    NoTime,
}

fn one(part: &Part, time: Duration, deadline: Instant, image: Option<&str>) -> Result<Outcome> {
    let begun = Instant::now();
    if begun >= deadline {
        return Ok(Outcome::NoTime);
    }
    let step = Step::new(part.name);
    step.doing(part.what);
    let profile = if part.release { "release" } else { "debug" };
    let mut tests = process::cargo();
    tests
        .current_dir(workspace::root())
        .args(["test", "--quiet", "--package", "pgs-tests", "--test", "e2e"])
        .args(part.release.then_some("--release"))
        .args(["--", part.filter])
        .env(VARIABLE, time.as_secs().to_string())
        .env(
            BINARY_VARIABLE,
            workspace::target().join(profile).join("pgs"),
        );
    if let Some(image) = image {
        tests.env(postgres_image::VARIABLE, image);
    }
    let mut ran = 0;
    let ended = bounded::run(&mut tests, deadline, |line| {
        ran += plan::passed(line);
        if plan::is_worth_showing(line) {
            report::line(format_args!("    {line}"));
        }
    })?;
    match ended {
        Ended::Succeeded if ran > 0 => {
            step.done("passed");
            Ok(Outcome::Passed(begun.elapsed()))
        }
        Ended::Succeeded => {
            step.skipped("nothing was run; see above");
            Ok(Outcome::Failed(begun.elapsed()))
        }
        Ended::Failed => Ok(Outcome::Failed(begun.elapsed())),
        Ended::Stopped => {
            step.skipped("stopped: the time is over; what it left the next run removes");
            Ok(Outcome::Failed(begun.elapsed()))
        }
    }
}

fn sum(results: &[(&&Part, Outcome)]) -> Result<()> {
    heading("sum");
    let mut bad = 0;
    for (part, outcome) in results {
        let text = match outcome {
            Outcome::Passed(took) => format!("passed [{}]", report::seconds(*took)),
            Outcome::Failed(took) => {
                bad += 1;
                format!("FAILED [{}]", report::seconds(*took))
            }
            Outcome::NoTime => "not run: no time was left".to_owned(),
        };
        report::line(format_args!("  {:<16} {text}", part.name));
    }
    if bad > 0 {
        bail!("{bad} of {} parts failed", results.len());
    }
    Ok(())
}
