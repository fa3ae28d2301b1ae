//! The keeper, with real processes: routers that are killed, replaced and refused.
//!
//! `cargo test -p pgs-tests --test keeper -- <filter>`, with `pgs` built before (`PGS_BIN`, else
//! `target/debug/pgs`). Needs no Docker.

mod attaching;
mod ground;
mod handing_over;
mod hanging_up;
mod keeping;
mod late;
mod manager;
mod replacing;
mod serving;
mod stage;
mod stand_in;
mod steps;
mod tables;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use libtest_mimic::Completion;
use libtest_mimic::Failed;
use libtest_mimic::Trial;
use pgs_tests::skip::Skip;

/// A test.
type Scenario = fn() -> anyhow::Result<()>;

const MODULES: &[(&str, &[(&str, Scenario)])] = &[
    ("keeping", keeping::SCENARIOS),
    ("attaching", attaching::SCENARIOS),
    ("hanging_up", hanging_up::SCENARIOS),
    ("replacing", replacing::SCENARIOS),
    ("manager", manager::SCENARIOS),
    ("serving", serving::SCENARIOS),
    ("handing_over", handing_over::SCENARIOS),
    ("late", late::SCENARIOS),
    ("steps", steps::SCENARIOS),
];

fn main() -> ExitCode {
    if let Some(done) = stand_in::run_if_asked() {
        return done;
    }
    let mut arguments = Arguments::from_args();
    // Waits of milliseconds are asserted, so tests do not run beside each other unless told.
    arguments.test_threads.get_or_insert(1);
    let mut trials = Vec::new();
    for (module, scenarios) in MODULES {
        for (name, scenario) in *scenarios {
            let scenario = *scenario;
            let name = format!("{module}::{name}");
            trials.push(Trial::ignorable_test(name, move || outcome(scenario())));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn outcome(result: anyhow::Result<()>) -> Result<Completion, Failed> {
    let Err(error) = result else {
        return Ok(Completion::Completed);
    };
    match error.downcast::<Skip>() {
        Ok(skip) if skip.is_forbidden() => Err(format!("would be skipped: {skip}").into()),
        Ok(skip) => Ok(Completion::ignored_with(skip)),
        Err(error) => Err(format!("{error:#}").into()),
    }
}
