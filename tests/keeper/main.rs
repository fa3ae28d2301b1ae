//! The keeper, with real processes: routers that are killed, replaced and refused.
//!
//! `cargo test -p pgs-tests --test keeper -- <filter>`, with `pgs` built before (`PGS_BIN`, else
//! `target/debug/pgs`). Needs neither Docker nor root.

mod attaching;
mod ground;
mod hanging_up;
mod keeping;
mod manager;
mod replacing;
mod serving;
mod stand_in;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use libtest_mimic::Trial;

/// A test.
type Scenario = fn() -> anyhow::Result<()>;

const MODULES: &[(&str, &[(&str, Scenario)])] = &[
    ("keeping", keeping::SCENARIOS),
    ("attaching", attaching::SCENARIOS),
    ("hanging_up", hanging_up::SCENARIOS),
    ("replacing", replacing::SCENARIOS),
    ("manager", manager::SCENARIOS),
    ("serving", serving::SCENARIOS),
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
            trials.push(Trial::test(format!("{module}::{name}"), move || {
                scenario().map_err(|error| format!("{error:#}").into())
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
