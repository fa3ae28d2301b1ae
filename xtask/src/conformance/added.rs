//! Some subjects of a suite run alone: their results beside those of the others that are there.

use super::compare::{Difference, Rule};
use super::endpoint::Subject;
use super::outcome::{About, Counts, Outcome, Verdict};
use super::suite::Name;
use crate::kernel_release;
use anyhow::{Result, bail, ensure};
use std::collections::BTreeSet;

/// The stored results that new ones are to be added to.
pub(super) struct Stored {
    outcome: Outcome,
    /// What is run anew.
    again: Vec<Subject>,
}

impl Stored {
    /// What is there of the suite; none if nothing is. An error if it cannot stand beside what
    /// would be run now, which is said before it is run.
    pub(super) fn read(name: Name, about: &About, again: &[Subject]) -> Result<Option<Self>> {
        let Some(outcome) = Outcome::read(name)? else {
            return Ok(None);
        };
        same_versions(&outcome, about)?;
        let again = again.to_vec();
        Ok(Some(Self { outcome, again }))
    }

    /// Both together. The stored run without pgs stays, of which the new one must be a repetition:
    /// else what was compared with the one says nothing beside what was compared with the other.
    pub(super) fn and(self, new: Outcome, instead: &Rule<'_>) -> Result<Outcome> {
        let Self { outcome, again } = self;
        let (was, is) = (without_pgs(&outcome)?, without_pgs(&new)?);
        ensure!(
            was == is,
            "without pgs it ends otherwise now ({}) than in the results that are kept ({}): run \
             `cargo xtask conformance {}`, without `--subject`",
            is.shown(),
            was.shown(),
            outcome.suite
        );
        let kept = |subject: Subject| subject == Subject::Direct || !again.contains(&subject);
        let late = new.runs.into_iter().filter(|run| !kept(run.subject));
        let late = late.map(|run| Counts {
            ended: Some(new.ended.clone()),
            ..run
        });
        let mut runs: Vec<Counts> = outcome.runs;
        runs.retain(|run| kept(run.subject));
        runs.extend(late);
        runs.sort_by_key(|run| run.subject);
        let mut differing = outcome.differing;
        differing.retain(|one| kept(one.subject));
        differing.extend(new.differing);
        // Those of the subjects that are kept, whose rules say so.
        let others: Vec<Subject> = runs.iter().map(|run| run.subject).collect();
        let mut deliberate = outcome.deliberate;
        for one in &mut deliberate {
            one.tests.retain(|test| {
                let due = |&subject: &Subject| kept(subject) && test.is_due(subject, instead);
                others.iter().any(due)
            });
        }
        deliberate.retain(|one| !one.tests.is_empty());
        deliberate.retain(|one| new.deliberate.iter().all(|two| two.reason != one.reason));
        deliberate.extend(new.deliberate);
        let failing: BTreeSet<&String> = new.failing_everywhere.iter().collect();
        let mut failing_everywhere = outcome.failing_everywhere;
        failing_everywhere.retain(|test| failing.contains(test));
        let unsteady: BTreeSet<String> = outcome.unsteady.into_iter().chain(new.unsteady).collect();
        Ok(Outcome {
            ended: outcome.ended,
            runs,
            differing,
            deliberate,
            failing_everywhere,
            unsteady: unsteady.into_iter().collect(),
            ..new
        })
    }
}

/// Fails unless client, tests, server and kernel are those of what is stored.
fn same_versions(stored: &Outcome, now: &About) -> Result<()> {
    for (what, was, is) in [
        ("the client", &*stored.client, &*now.facts.client),
        ("the tests", &stored.tests, &now.facts.tests),
        ("the server", &stored.server, &now.server),
        // Older results have the builder's part of it, too.
        (
            "Linux",
            kernel_release::version_of(&stored.kernel),
            kernel_release::version_of(&now.kernel),
        ),
    ] {
        if was != is {
            bail!(
                "results can only be added to those of the same versions: {what} was `{was}` and \
                 is `{is}`; run `cargo xtask conformance {}`, without `--subject`",
                stored.suite
            );
        }
    }
    Ok(())
}

/// What is kept of the run without pgs: the counts, and which tests failed.
#[derive(PartialEq, Eq)]
struct WithoutPgs {
    passed: usize,
    skipped: usize,
    failed: BTreeSet<String>,
}

impl WithoutPgs {
    fn shown(&self) -> String {
        let failed: Vec<&str> = self.failed.iter().map(String::as_str).collect();
        let (passed, skipped) = (self.passed, self.skipped);
        match failed.as_slice() {
            [] => format!("{passed} passed, {skipped} skipped"),
            _ => format!(
                "{passed} passed, {skipped} skipped, failed: {}",
                failed.join(", ")
            ),
        }
    }
}

fn without_pgs(outcome: &Outcome) -> Result<WithoutPgs> {
    let direct = outcome
        .runs
        .iter()
        .find(|run| run.subject == Subject::Direct);
    let Some(direct) = direct else {
        bail!("the results of {} have no run without pgs", outcome.suite);
    };
    let failed = |one: &&Difference| one.without_pgs == Verdict::Failed;
    let differing = outcome.differing.iter().filter(failed);
    let differing = differing.map(|one| &one.test);
    let failed = outcome.failing_everywhere.iter().chain(differing);
    Ok(WithoutPgs {
        passed: direct.passed,
        skipped: direct.skipped,
        failed: failed.cloned().collect(),
    })
}

#[cfg(test)]
#[path = "added_tests.rs"]
mod tests;
