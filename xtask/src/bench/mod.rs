//! `cargo xtask bench`: pgs, the published port, HAProxy and PgBouncer side by side.
//!
//! Everything is measured in one run, subject by subject in turn, round by round, since figures of
//! two runs on a shared machine cannot be compared. Ratios within a round are what counts.

mod bars;
mod chart;
mod copy;
mod cpu;
mod figure;
mod ground;
mod idle;
mod interruption;
mod machine;
mod markdown;
mod measure;
mod memory;
mod network;
mod options;
mod pgbench;
mod plan;
mod results;
mod router;
mod server;
mod stage;
mod statistics;
mod subject;

use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose};
use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use figure::Figure;
use interruption::Interruption;
use measure::Values;
pub(crate) use options::BenchArgs;
use options::Settings;
use plan::{Cell, Plan};
use results::{Failure, Results, Sample};
use stage::{Binaries, Stage};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let plan = Plan::new(args.is_quick(), &args.only)?;
    if args.list {
        for cell in plan.round(0) {
            report::line(cell);
        }
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces and tenants' sockets are root's; run it as root");
    }
    let load = machine::load();
    let interruption = Interruption::listen()?;
    let image = setup::ensure(Purpose::Bench)?.image;
    let settings = args.settings(image.context("set-up found no PostgreSQL image")?);
    let binaries = build()?;

    heading("stage");
    let began = process::output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    let subjects = plan.subjects();
    let stage = Stage::build(&binaries, &subjects, &settings, interruption)?;
    if plan.has(|figure| figure == Figure::CopyIn) {
        copy::prepare_input(&stage, &settings)?;
    }
    let machine = machine::Machine::examine(&stage, &subjects, load)?;
    let (samples, failures) = rounds(&stage, &settings, &plan)?;
    drop(stage);

    let results = Results {
        began,
        machine,
        settings,
        summary: results::summarise(&samples),
        samples,
        failures,
    };
    let default = workspace::root().join("bench/results");
    write(&results, args.output.as_deref().unwrap_or(&default))
}

/// What is measured is a release build of this source.
fn build() -> Result<Binaries> {
    let step = Step::new("pgs");
    step.doing("building for release");
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--release", "--package", "pgs-userspace"])
        .args(["--bin", "pgs", "--example", "fill_registry"])
        .current_dir(workspace::root());
    process::followed(&step, &mut cargo)?;
    let release = workspace::target().join("release");
    step.done("built");
    Ok(Binaries {
        pgs: release.join("pgs"),
        filler: release.join("examples/fill_registry"),
    })
}

/// Every round measures everything once. A measurement that fails is a result too.
fn rounds(stage: &Stage, settings: &Settings, plan: &Plan) -> Result<(Vec<Sample>, Vec<Failure>)> {
    let (mut samples, mut failures) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for round in 0..settings.rounds {
        let cells = plan.round(round);
        heading(format_args!(
            "round {} of {}: {} measurements",
            round + 1,
            settings.rounds,
            cells.len()
        ));
        for cell in cells {
            stage.interruption().check()?;
            match measure::measure(stage, settings, cell) {
                Ok(values) => {
                    report::line(format_args!("  ✓ {cell}: {}", shown(&values)));
                    samples.push(Sample::new(round + 1, cell, values));
                }
                Err(error) => {
                    // An interruption looks like a failure of the client that it ended.
                    stage.interruption().check()?;
                    failures.push(failed(round + 1, cell, &error));
                }
            }
        }
    }
    report::line(format_args!(
        "\n{} measurements in {}",
        samples.len(),
        report::seconds(began.elapsed())
    ));
    Ok((samples, failures))
}

fn failed(round: u32, cell: Cell, error: &anyhow::Error) -> Failure {
    let error = format!("{error:#}");
    report::line(format_args!("  ✗ {cell}: {error}"));
    Failure {
        round,
        measurement: cell.to_string(),
        error,
    }
}

fn shown(values: &Values) -> String {
    let one = |(metric, value): (&figure::Metric, &f64)| {
        format!("{} {}", metric.show(*value), metric.title())
    };
    values
        .metrics
        .iter()
        .map(one)
        .collect::<Vec<_>>()
        .join(", ")
}

fn write(results: &Results, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let put = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    put(
        "latest.json",
        &(serde_json::to_string_pretty(results)? + "\n"),
    )?;
    if let Some(svg) = chart::render(results) {
        put("latest.svg", &svg)?;
    }
    let table = markdown::render(results);
    put("latest.md", &table)?;
    report::line(format_args!("\n{table}"));
    report::line(format_args!("written to {}", directory.display()));
    Ok(())
}
