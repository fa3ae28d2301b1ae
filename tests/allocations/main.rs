//! What a login makes the router allocate: `pgs serve`, with an allocator that counts.
//!
//! `cargo test -p pgs-tests --test allocations`. Needs no Docker, and not the binary: this program
//! plays the router too, in a process of its own.

mod login;
mod router;

use std::alloc::System;
use std::process::ExitCode;

use libtest_mimic::Arguments;
use libtest_mimic::Completion;
use libtest_mimic::Failed;
use libtest_mimic::Trial;
use pgs_tests::router::DataPath;
use pgs_tests::skip::Skip;
use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::StatsAlloc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a login costs on one path.
type Scenario = fn(DataPath) -> anyhow::Result<()>;

const MODULES: &[(&str, &[(&str, Scenario)])] = &[("login", login::SCENARIOS)];

fn main() -> ExitCode {
    if let Some(code) = router::play_if_asked() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // Whatever else the machine does makes a login no dearer; another router's would be in the way.
    arguments.test_threads.get_or_insert(1);
    let mut trials = Vec::new();
    for path in [DataPath::Kernel, DataPath::Relay] {
        for (module, scenarios) in MODULES {
            for (name, scenario) in *scenarios {
                let name = format!("{path}::{module}::{name}");
                let scenario = *scenario;
                trials.push(Trial::ignorable_test(name, move || outcome(scenario(path))));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn outcome(result: anyhow::Result<()>) -> Result<Completion, Failed> {
    let Err(error) = result else {
        return Ok(Completion::Completed);
    };
    match error.downcast::<Skip>() {
        Ok(skip) => Ok(Completion::ignored_with(skip)),
        Err(error) => Err(format!("{error:#}").into()),
    }
}
