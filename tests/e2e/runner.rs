//! Runs every scenario on every path that it is for, counts what was skipped, and takes everything
//! down.

use std::fs;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;

use libtest_mimic::Arguments;
use libtest_mimic::Completion;
use libtest_mimic::Failed;
use libtest_mimic::Trial;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Scenario;
use pgs_tests::stage::Stage;
use pgs_tests::stage::warn;

use crate::Named;

/// Lines of the router's log that go with a failure.
const LOG_LINES: usize = 30;

/// Names and reasons.
type Skipped = Arc<Mutex<Vec<(String, String)>>>;

pub(crate) fn run(modules: &[(&str, &[Named])], without_a_path: &[&str]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Memory and processor time are asserted, so tests do not run beside each other unless told.
    arguments.test_threads.get_or_insert(1);
    let skipped = Skipped::default();
    let stages = DataPath::ALL.map(|path| Arc::new(Stage::new(path)));
    let mut trials = Vec::new();
    for stage in &stages {
        for (module, scenarios) in modules {
            if stage.path() == DataPath::Relay && without_a_path.contains(module) {
                continue;
            }
            for (name, scenario) in *scenarios {
                let name = format!("{}::{module}::{name}", stage.path());
                trials.push(trial(name, *scenario, stage, &skipped));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for stage in stages {
        match Arc::into_inner(stage) {
            Some(mut stage) => stage.tear_down(),
            None => warn("a scenario still runs; its tenants stay"),
        }
    }
    report(
        &skipped
            .lock()
            .map(|skipped| skipped.clone())
            .unwrap_or_default(),
    );
    conclusion.exit_code()
}

fn trial(name: String, scenario: Scenario, stage: &Arc<Stage>, skipped: &Skipped) -> Trial {
    let (stage, skipped) = (Arc::clone(stage), Arc::clone(skipped));
    Trial::ignorable_test(name.clone(), move || match scenario(&stage) {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast::<Skip>() {
            Ok(skip) => skip_or_fail(name, &skip, &skipped),
            Err(error) => Err(failure(&error, &stage)),
        },
    })
}

fn skip_or_fail(name: String, skip: &Skip, skipped: &Skipped) -> Result<Completion, Failed> {
    if skip.is_forbidden() {
        return Err(format!("would be skipped: {skip}").into());
    }
    if let Ok(mut skipped) = skipped.lock() {
        skipped.push((name, skip.to_string()));
    }
    Ok(Completion::ignored_with(skip))
}

fn failure(error: &anyhow::Error, stage: &Stage) -> Failed {
    let log = stage.router().map(Router::log).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    format!("{error:#}\n\nend of the router's log:\n{tail}").into()
}

fn report(skipped: &[(String, String)]) {
    let mut lines = String::new();
    for (name, reason) in skipped {
        lines += &format!("{name}: {reason}\n");
    }
    if let Some(file) = std::env::var_os("PGS_TEST_SKIPPED")
        && let Err(error) = fs::write(&file, &lines)
    {
        warn(&format!("writing {}: {error}", file.display()));
    }
    let list: String = lines
        .lines()
        .map(|line| format!("not run: {line}\n"))
        .collect();
    if let Err(error) = std::io::stdout().write_all(list.as_bytes()) {
        warn(&format!("writing the summary: {error}"));
    }
}
