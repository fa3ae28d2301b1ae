//! Runs every scenario on every path that it is for, counts what was skipped, says which took the
//! longest, and takes everything down.

use std::fs;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use libtest_mimic::Arguments;
use libtest_mimic::Completion;
use libtest_mimic::Failed;
use libtest_mimic::Trial;
use pgs_tests::length::Length;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Scenario;
use pgs_tests::stage::Stage;
use pgs_tests::stage::warn;

use crate::Named;

/// Lines of the router's log that go with a failure.
const LOG_LINES: usize = 30;

/// Those that took longer are named: what to look at when a run becomes too long.
const SLOW: Duration = Duration::from_secs(5);

/// What is said of scenarios after the last one, by name.
#[derive(Default)]
struct Notes {
    /// With the reasons.
    skipped: Mutex<Vec<(String, String)>>,
    took: Mutex<Vec<(String, Duration)>>,
}

pub(crate) fn run(modules: &[(&str, &[Named])], without_a_path: &[&str]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Memory and processor time are asserted, so tests do not run beside each other unless told.
    arguments.test_threads.get_or_insert(1);
    let notes = Arc::<Notes>::default();
    let stages = DataPath::ALL.map(|path| Arc::new(Stage::new(path)));
    let unknown = without_a_path.iter().find(|name| !is_known(name, modules));
    if let Some(unknown) = unknown {
        warn(&format!(
            "{unknown} is to run once, and there is no such thing"
        ));
        return ExitCode::FAILURE;
    }
    // What cannot be read is said by the first test that asks for it.
    let is_short = Length::of_this_run().is_ok_and(|length| length.pick(true, false));
    let mut trials = Vec::new();
    for stage in &stages {
        let once = |name: &str| without_a_path.contains(&name);
        let elsewhere = stage.path() == DataPath::Relay && is_short;
        for (module, scenarios) in modules {
            for (name, scenario) in *scenarios {
                let of_module = format!("{module}::{name}");
                if elsewhere && (once(module) || once(&of_module)) {
                    continue;
                }
                let name = format!("{}::{of_module}", stage.path());
                trials.push(trial(name, *scenario, stage, &notes));
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
    report(&notes);
    conclusion.exit_code()
}

/// Whether it is a module or a scenario of one.
fn is_known(name: &str, modules: &[(&str, &[Named])]) -> bool {
    let (wanted, scenario) = match name.split_once("::") {
        Some((module, scenario)) => (module, Some(scenario)),
        None => (name, None),
    };
    modules.iter().any(|(module, scenarios)| {
        *module == wanted
            && scenario.is_none_or(|wanted| scenarios.iter().any(|(name, _)| *name == wanted))
    })
}

fn trial(name: String, scenario: Scenario, stage: &Arc<Stage>, notes: &Arc<Notes>) -> Trial {
    let (stage, notes) = (Arc::clone(stage), Arc::clone(notes));
    Trial::ignorable_test(name.clone(), move || {
        let began = Instant::now();
        let result = scenario(&stage);
        if let Ok(mut took) = notes.took.lock() {
            took.push((name.clone(), began.elapsed()));
        }
        match result {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => match error.downcast::<Skip>() {
                Ok(skip) => skip_or_fail(name, &skip, &notes),
                Err(error) => Err(failure(&error, &stage)),
            },
        }
    })
}

fn skip_or_fail(name: String, skip: &Skip, notes: &Notes) -> Result<Completion, Failed> {
    if skip.is_forbidden() {
        return Err(format!("would be skipped: {skip}").into());
    }
    if let Ok(mut skipped) = notes.skipped.lock() {
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

fn report(notes: &Notes) {
    let mut list = String::new();
    if let Ok(skipped) = notes.skipped.lock() {
        let lines: String = skipped
            .iter()
            .map(|(name, reason)| format!("{name}: {reason}\n"))
            .collect();
        if let Some(file) = std::env::var_os("PGS_TEST_SKIPPED")
            && let Err(error) = fs::write(&file, &lines)
        {
            warn(&format!("writing {}: {error}", file.display()));
        }
        list.extend(lines.lines().map(|line| format!("not run: {line}\n")));
    }
    if let Ok(mut took) = notes.took.lock() {
        took.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let slow = took.iter().filter(|(_, time)| *time >= SLOW);
        list.extend(
            slow.map(|(name, time)| format!("slow: {name}: {:.1} s\n", time.as_secs_f64())),
        );
    }
    if let Err(error) = std::io::stdout().write_all(list.as_bytes()) {
        warn(&format!("writing the summary: {error}"));
    }
}
