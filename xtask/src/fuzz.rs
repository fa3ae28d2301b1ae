//! `cargo xtask fuzz`: libFuzzer on the targets of `fuzz/`, for a bounded time, on stable Rust.
//!
//! Coverage instrumentation is a pass of LLVM that needs no nightly compiler; only sanitizers do,
//! and safe code gains little from them. `cargo fuzz run <target> --sanitizer none --features
//! libfuzzer` does the same for those who have cargo-fuzz.

use crate::report::{self, Step, heading};
use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What cargo-fuzz itself passes for coverage, without a sanitizer.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";
/// Longer inputs find nothing that shorter ones do not: the longest packet has 10 000 bytes.
const INPUT_BYTES_MAX: u32 = 12_000;
/// An input that takes longer counts as a finding.
const INPUT_SECONDS_MAX: u32 = 5;
const MEMORY_MEBIBYTES_MAX: u32 = 1024;
/// For each target, in CI: enough for the corpus and its neighbourhood.
const SMOKE_SECONDS: u32 = 10;

#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// The targets to run; all without one
    targets: Vec<String>,
    /// Say which targets there are, and run none
    #[arg(long)]
    list: bool,
    /// Seconds for each target
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u32,
    /// Keep new inputs that reach new code in the corpus, each as short as it goes
    #[arg(long)]
    grow: bool,
}

pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let known = known()?;
    if args.list {
        for target in known {
            report::line(target);
        }
        return Ok(());
    }
    if let Some(unknown) = args.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no target `{unknown}`, but: {}", known.join(", "));
    }
    let targets = if args.targets.is_empty() {
        &known
    } else {
        &args.targets
    };
    heading("fuzz");
    for target in targets {
        one(target, args)?;
    }
    Ok(())
}

/// A short run of every target, for CI.
pub(crate) fn smoke() -> Result<()> {
    run(&FuzzArgs {
        targets: Vec::new(),
        list: false,
        seconds: SMOKE_SECONDS,
        grow: false,
    })
}

/// Every directory of the corpus: a test of `pgs-fuzz` holds that they are the targets.
fn known() -> Result<Vec<String>> {
    let corpus = workspace::root().join("fuzz/corpus");
    let entries = fs::read_dir(&corpus).with_context(|| format!("read {}", corpus.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

fn one(target: &str, args: &FuzzArgs) -> Result<()> {
    let step = Step::new(target);
    let scratch = workspace::scratch("fuzz")?;
    step.doing("building it with coverage");
    let binary = build(&step, target, &scratch)?;
    let found = scratch.join("artifacts").join(target).join("");
    let work = scratch.join("corpus").join(target);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&work)?;
    let kept = workspace::root().join("fuzz/corpus").join(target);
    step.doing(format_args!("running it for {} s", args.seconds));
    let mut fuzzer = Command::new(&binary);
    fuzzer
        // New inputs go to the first; both are read.
        .arg(&work)
        .arg(&kept)
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MEBIBYTES_MAX}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}", found.display()));
    let log = scratch.join(format!("{target}.txt"));
    let output = fuzzer.output().context("start the fuzzer")?;
    fs::write(&log, &output.stderr)?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let reason = text
            .lines()
            .find(|line| line.contains("panicked") || line.contains("ERROR"));
        bail!(
            "{target} found something: {}; the input is in {}, the rest in {}",
            reason.unwrap_or_default(),
            found.display(),
            log.display()
        );
    }
    if args.grow {
        grow(&binary, &kept, &work)?;
    }
    let runs = statistic(&text, "stat::number_of_executed_units:");
    anyhow::ensure!(runs > 0, "{target} ran no input; see {}", log.display());
    step.done(format_args!("{runs} inputs, nothing found"));
    Ok(())
}

fn build(step: &Step, target: &str, scratch: &std::path::Path) -> Result<PathBuf> {
    let triple = host()?;
    let mut cargo = process::cargo();
    cargo
        .current_dir(workspace::root())
        // With a target named, build scripts and macros are not instrumented.
        .args(["build", "--package", "pgs-fuzz", "--features", "libfuzzer"])
        .args(["--profile", "fuzz", "--bin", target, "--target", &triple])
        .env("CARGO_TARGET_DIR", scratch.join("target"))
        .env("RUSTFLAGS", COVERAGE);
    process::followed(step, &mut cargo)?;
    Ok(scratch
        .join("target")
        .join(triple)
        .join("fuzz")
        .join(target))
}

fn host() -> Result<String> {
    let text = process::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

/// Merges what is new into what is kept, as little of it as reaches the same code.
fn grow(binary: &std::path::Path, kept: &std::path::Path, work: &std::path::Path) -> Result<()> {
    let mut merge = Command::new(binary);
    merge.arg("-merge=1").arg(kept).arg(work);
    process::output(&mut merge).map(drop)
}

fn statistic(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read() {
        let text = "#5 DONE\nstat::number_of_executed_units: 1234\n";
        assert_eq!(statistic(text, "stat::number_of_executed_units:"), 1234);
        assert_eq!(statistic("", "stat::number_of_executed_units:"), 0);
    }

    #[test]
    fn every_corpus_is_a_target() {
        assert!(known().unwrap().contains(&"startup".to_owned()));
    }
}
