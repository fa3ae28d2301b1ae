//! `cargo xtask conformance`: the clients' own test suites, without pgs and through it.
//!
//! A suite is run against a tenant's server directly, then through `pgs serve` on each path, each
//! time on a new tenant. What must hold: every test ends as it does without pgs. Tests that fail
//! without pgs too say something of the suite or of this set-up, and are listed.

mod compare;
mod document;
mod endpoint;
mod fetch;
mod ground;
mod jdbc;
mod libtest;
mod negotiation;
mod node_postgres;
mod outcome;
mod program;
mod psycopg;
mod psycopg2;
mod python;
mod regress;
mod sqlx;
mod suite;
mod tenant;
mod tokio_postgres;

use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose};
use crate::{apt, process, workspace};
use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use endpoint::{Carried, Endpoint, Subject};
use ground::Ground;
use outcome::{Outcome, Run, Tests};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use suite::{Name, Suite};

#[derive(Args)]
pub(crate) struct ConformanceArgs {
    /// The suites to run, or `all`
    #[arg(value_name = "NAME", required_unless_present = "list", value_parser = choices())]
    names: Vec<String>,
    /// Say which suites there are, and run none
    #[arg(long)]
    list: bool,
    /// How pgs carries the sessions
    #[arg(long, value_enum, default_value_t = Paths::Both)]
    path: Paths,
    /// Print the results as JSON, too
    #[arg(long)]
    json: bool,
}

/// Instead of a suite's name.
const ALL: &str = "all";

fn choices() -> PossibleValuesParser {
    PossibleValuesParser::new([ALL].into_iter().chain(Name::ALL.map(Name::text)))
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Paths {
    Kernel,
    Relay,
    Both,
}

impl Paths {
    /// What is run, and in which order.
    fn subjects(self) -> Vec<Subject> {
        match self {
            Self::Kernel => vec![Subject::Direct, Subject::Kernel],
            Self::Relay => vec![Subject::Direct, Subject::Relay],
            Self::Both => vec![Subject::Direct, Subject::Relay, Subject::Kernel],
        }
    }
}

pub(crate) fn run(args: &ConformanceArgs) -> Result<()> {
    if args.list {
        for name in Name::ALL {
            report::line(format_args!("{:<15} {}", name.text(), name.about()));
        }
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("tenants' sockets and the kernel path are root's; run it as root");
    }
    let names = chosen(&args.names);
    let image = setup::ensure(Purpose::Demo)?.image;
    let image = image.context("set-up found no PostgreSQL image")?;
    ensure_socat()?;
    let pgs = build()?;
    let mut failed = Vec::new();
    for name in names {
        heading(name.text());
        // A suite that cannot be had must not keep the others from running.
        match one(name, &pgs, &image, &args.path.subjects()) {
            Ok(outcome) => {
                if args.json {
                    report::line(outcome.to_json()?);
                }
                if !outcome.conforms() {
                    failed.push(name.text());
                }
            }
            Err(error) => {
                report::failure(&error);
                failed.push(name.text());
            }
        }
    }
    if !failed.is_empty() {
        bail!(
            "{}: not as without pgs, or not run; see above and {}",
            failed.join(", "),
            outcome::directory().display()
        );
    }
    Ok(())
}

fn chosen(names: &[String]) -> Vec<Name> {
    Name::ALL
        .into_iter()
        .filter(|name| names.iter().any(|said| said == ALL || said == name.text()))
        .collect()
}

/// Prepares one suite and runs it on every subject; the results are written in any case.
fn one(name: Name, pgs: &std::path::Path, image: &str, subjects: &[Subject]) -> Result<Outcome> {
    let ground = Ground::prepare(name.text(), pgs, image)?;
    let suite = name.prepare(&ground)?;
    let mut runs = Vec::new();
    for &subject in subjects {
        runs.push(run_on(&ground, suite.as_ref(), subject)?);
    }
    let unsteady = once_more(&ground, suite.as_ref(), subjects, &mut runs)?;
    let outcome = Outcome::new(name, suite.as_ref(), &ground, &runs, unsteady)?;
    outcome.write()?;
    document::write()?;
    outcome.report();
    Ok(outcome)
}

/// Tests of time and of concurrency fail now and then, without pgs as with it. Where tests differ,
/// all is run a second time, and what is unsteady by itself is told apart, and said.
fn once_more(
    ground: &Ground,
    suite: &dyn Suite,
    subjects: &[Subject],
    runs: &mut [Run],
) -> Result<Vec<String>> {
    let differed = compare::names_of_differing(runs, &|test| suite.instead(test));
    if differed.is_empty() {
        return Ok(Vec::new());
    }
    report::line(format_args!(
        "  … {} tests differ: a second run",
        differed.len()
    ));
    let mut unsteady = Vec::new();
    for (&subject, run) in subjects.iter().zip(runs) {
        let again = run_on(ground, suite, subject)?;
        unsteady.extend(run.try_again(&again, &differed));
    }
    unsteady.sort();
    unsteady.dedup();
    Ok(unsteady)
}

/// A new tenant, a server or router at the suite's port, the suite, and all of it away again.
fn run_on(ground: &Ground, suite: &dyn Suite, subject: Subject) -> Result<Run> {
    let step = Step::new(subject.name());
    step.doing("making the tenant");
    let tenant = ground.tenant(suite)?;
    suite.furnish(&tenant)?;
    step.doing("running the suite");
    let began = Instant::now();
    let log = ground.log(subject.name());
    let mut tests = Tests::new();
    let mut carried = Carried::default();
    for mode in suite.modes() {
        let endpoint = Endpoint::start(subject, ground, suite, mode, &tenant)?;
        let found = suite
            .run(&step, &endpoint, &tenant, &log)
            .with_context(|| format!("run it on {}; see {}", subject.name(), log.display()))?;
        tests.extend(found);
        carried.add(&endpoint.carried()?);
    }
    let run = Run::new(subject, tests, began.elapsed().as_secs());
    if run.is_empty() {
        bail!("no test was run; see {}", log.display());
    }
    if subject == Subject::Direct {
        step.done(run.counts());
    } else {
        carried.check(subject)?;
        step.done(format_args!("{}; pgs carried {carried}", run.counts()));
    }
    Ok(run)
}

/// What gives the tenant's Unix socket a port for the runs without pgs.
fn ensure_socat() -> Result<()> {
    let step = Step::new("socat");
    if process::find("socat").is_none() {
        if !apt::can_install() {
            bail!("`socat` is not installed; run `sudo apt-get install socat`");
        }
        apt::install(&step, &["socat"])?;
    }
    step.done("installed");
    Ok(())
}

fn build() -> Result<PathBuf> {
    let step = Step::new("pgs");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace::root()).args([
        "build",
        "--package",
        "pgs-userspace",
        "--bin",
        "pgs",
    ]);
    process::followed(&step, &mut cargo)?;
    let binary = workspace::target().join("debug/pgs");
    step.done(binary.display());
    Ok(binary)
}
