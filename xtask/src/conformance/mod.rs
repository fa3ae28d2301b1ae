//! `cargo xtask conformance`: the clients' own test suites, without pgs and through it.
//!
//! A suite is run against a tenant's server directly, then through `pgs serve` on each path and
//! over TLS, each time on a new tenant. What must hold: every test ends as it does without pgs.
//! Tests that fail without pgs too say something of the suite or of this set-up, and are listed.

mod added;
mod carried;
mod certificates;
mod compare;
mod document;
mod encryption;
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
mod source;
mod sqlalchemy;
mod sqlx;
mod suite;
mod tenant;
mod tokio_postgres;

use crate::report::{self, Step, heading};
use crate::setup::{self, Purpose};
use crate::{apt, process, workspace};
use added::Stored;
use anyhow::{Context, Result, bail};
use carried::Carried;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use endpoint::{Endpoint, Subject};
use ground::Ground;
use outcome::{About, Outcome, Run, Tests};
use source::Source;
use std::path::PathBuf;
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
    /// What to run beside the tenant's server itself, more than one by repeating it; everything
    /// unless said. What is stored of the others stays, if it is of the same versions
    #[arg(long = "subject", value_name = "NAME", value_enum)]
    subjects: Vec<Subject>,
    /// Print the results as JSON, too
    #[arg(long)]
    json: bool,
}

/// Instead of a suite's name.
const ALL: &str = "all";

fn choices() -> PossibleValuesParser {
    PossibleValuesParser::new([ALL].into_iter().chain(Name::ALL.map(Name::text)))
}

/// Which subjects a suite is run on.
struct Choice {
    /// The run without pgs first.
    subjects: Vec<Subject>,
    /// Whether they are to be added to what is stored of others.
    added: bool,
}

impl Choice {
    /// Of a suite, where these were asked for; none if it has none of them.
    fn of(name: Name, asked: &[Subject]) -> Option<Self> {
        let wanted = |subject: &Subject| asked.is_empty() || asked.contains(subject);
        let through = Subject::value_variants().iter().copied();
        let through = through.filter(|subject| wanted(subject) && name.runs_on(*subject));
        let subjects: Vec<Subject> = std::iter::once(Subject::Direct).chain(through).collect();
        (subjects.len() > 1).then_some(Self {
            subjects,
            added: !asked.is_empty(),
        })
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
    let built = build()?;
    let mut failed = Vec::new();
    for name in names {
        heading(name.text());
        let Some(choice) = Choice::of(name, &args.subjects) else {
            Step::new(name.text()).skipped("has none of these subjects");
            continue;
        };
        // A suite that cannot be had must not keep the others from running.
        match one(name, &built, &image, &choice) {
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

/// Prepares one suite and runs it on every subject; the results are written in any case, but where
/// they cannot stand beside those that are to be kept.
fn one(name: Name, built: &Built, image: &str, choice: &Choice) -> Result<Outcome> {
    let Choice { subjects, added } = choice;
    let ground = Ground::prepare(name.text(), &built.pgs, image)?;
    let suite = name.prepare(&ground)?;
    let about = About::gather(suite.as_ref(), &ground, built.source.clone())?;
    let stored = if *added {
        Stored::read(name, &about, subjects)?
    } else {
        None
    };
    let mut runs = Vec::new();
    for &subject in subjects {
        runs.push(run_on(&ground, suite.as_ref(), subject)?);
    }
    let unsteady = once_more(&ground, suite.as_ref(), subjects, &mut runs)?;
    let instead = |subject, test: &str| suite.instead(subject, test);
    let outcome = Outcome::new(name, about, &runs, unsteady, &instead)?;
    outcome.report();
    let outcome = match stored {
        Some(stored) => stored.and(outcome, &instead)?,
        None => outcome,
    };
    outcome.write()?;
    document::write()?;
    Ok(outcome)
}

/// Tests of time and of concurrency fail now and then, without pgs as with it. Where tests differ,
/// all is run a second time where one of them did not pass, and what is unsteady by itself is told
/// apart, and said.
fn once_more(
    ground: &Ground,
    suite: &dyn Suite,
    subjects: &[Subject],
    runs: &mut [Run],
) -> Result<Vec<String>> {
    let differed = compare::names_of_differing(runs, &|subject, test| suite.instead(subject, test));
    if differed.is_empty() {
        return Ok(Vec::new());
    }
    report::line(format_args!(
        "  … {} tests differ: a second run",
        differed.len()
    ));
    let mut unsteady = Vec::new();
    for (&subject, run) in subjects.iter().zip(runs) {
        // What has passed is not asked again.
        if !run.has_not_passed_one_of(&differed) {
            continue;
        }
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
    let mut run = Run::new(subject, tests, began.elapsed().as_secs());
    if run.is_empty() {
        bail!("no test was run; see {}", log.display());
    }
    if subject == Subject::Direct {
        step.done(run.counts());
    } else {
        carried.check(subject)?;
        run.encrypted_sessions = carried.encrypted(subject);
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

/// The program that all runs have.
struct Built {
    pgs: PathBuf,
    /// None where git cannot say it.
    source: Option<Source>,
}

fn build() -> Result<Built> {
    let step = Step::new("pgs");
    let mut cargo = process::cargo();
    cargo.current_dir(workspace::root()).args([
        "build",
        // Some of the tests are of time, and users have no other.
        "--release",
        "--package",
        "pgs-userspace",
        "--bin",
        "pgs",
    ]);
    process::followed(&step, &mut cargo)?;
    // Now: the tree can be another one when the suites have ended.
    let source = Source::now();
    let pgs = workspace::target().join("release/pgs");
    match &source {
        Some(source) => step.done(format_args!("{}, {source}", pgs.display())),
        None => step.done(pgs.display()),
    }
    Ok(Built { pgs, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_that_a_suite_has_is_run_after_the_one_without_pgs() {
        use Subject::{Direct, Kernel, Relay, Tls};
        let subjects = |name, asked: &[Subject]| Choice::of(name, asked).map(|one| one.subjects);
        assert_eq!(
            subjects(Name::Jdbc, &[]),
            Some(vec![Direct, Relay, Kernel, Tls])
        );
        assert_eq!(subjects(Name::Jdbc, &[Tls]), Some(vec![Direct, Tls]));
        let without = subjects(Name::TokioPostgres, &[Tls, Relay]);
        assert_eq!(without, Some(vec![Direct, Relay]));
        assert_eq!(subjects(Name::TokioPostgres, &[Tls]), None);
    }
}
