//! How the tests of a suite ended, on every subject, and what differs.

use super::compare::{Deliberate, Difference, Rule, deliberate, differing, failing_everywhere};
use super::endpoint::Subject;
use super::ground::Ground;
use super::source::Source;
use super::suite::{Facts, Name, Suite};
use crate::{kernel_release, process, report, workspace};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// How one test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// By its own decision: it does not apply here.
    Skipped,
    /// Some subjects ran it and this one did not.
    Absent,
}

/// Every test by its name.
pub(super) type Tests = BTreeMap<String, Verdict>;

/// All tests of one subject.
pub(super) struct Run {
    pub(super) subject: Subject,
    pub(super) tests: Tests,
    seconds: u64,
    /// How many sessions of clients with the router were encrypted, over TLS.
    pub(super) encrypted_sessions: Option<u64>,
}

impl Run {
    pub(super) fn new(subject: Subject, tests: Tests, seconds: u64) -> Self {
        Self {
            subject,
            tests,
            seconds,
            encrypted_sessions: None,
        }
    }

    /// Whether nothing was run. Suites that find nothing to do must not count as passed.
    pub(super) fn is_empty(&self) -> bool {
        self.count(Verdict::Passed) == 0
    }

    pub(super) fn counts(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.count(Verdict::Passed),
            self.count(Verdict::Failed),
            self.count(Verdict::Skipped)
        )
    }

    /// Takes what a second try has shown of the tests that differed: passed is passed. Gives those
    /// that ended otherwise than before, which no comparison can rest on.
    pub(super) fn try_again(&mut self, again: &Self, differed: &BTreeSet<String>) -> Vec<String> {
        let mut unsteady = Vec::new();
        for test in differed {
            let (before, now) = (self.verdict(test), again.verdict(test));
            if before != now {
                unsteady.push(test.clone());
            }
            if now == Verdict::Passed {
                self.tests.insert(test.clone(), now);
            }
        }
        unsteady
    }

    /// Whether one of these tests ended otherwise here than by passing.
    pub(super) fn has_not_passed_one_of(&self, tests: &BTreeSet<String>) -> bool {
        let mut verdicts = tests.iter().map(|test| self.verdict(test));
        verdicts.any(|verdict| verdict != Verdict::Passed)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.tests.values().filter(|one| **one == verdict).count()
    }

    pub(super) fn verdict(&self, test: &str) -> Verdict {
        self.tests.get(test).copied().unwrap_or(Verdict::Absent)
    }
}

/// What is kept of a suite's run.
#[derive(Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) suite: String,
    pub(super) client: String,
    pub(super) tests: String,
    pub(super) notes: Vec<String>,
    /// RFC 3339, UTC, when the run ended.
    pub(super) ended: String,
    pub(super) server: String,
    pub(super) kernel: String,
    pub(super) runs: Vec<Counts>,
    /// Tests that do not end as they do without pgs.
    pub(super) differing: Vec<Difference>,
    /// Tests that are to end otherwise through pgs, and do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) deliberate: Vec<Deliberate>,
    /// Tests that fail without pgs too, and in the same way with it.
    pub(super) failing_everywhere: Vec<String>,
    /// Tests that differed at first and were run again, on every subject; one that passed in either
    /// run counts as passed.
    pub(super) unsteady: Vec<String>,
}

/// One subject's tests in numbers.
#[derive(Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) subject: Subject,
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    pub(super) seconds: u64,
    /// Over TLS: how many sessions the router carried, every one of them encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encrypted_sessions: Option<u64>,
    /// RFC 3339, UTC, when it ended, where it was run later than the others and added to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<String>,
    /// Of what commit the pgs was; older results do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source>,
}

/// What was run, and on what; known before it is run.
pub(super) struct About {
    pub(super) facts: Facts,
    pub(super) server: String,
    pub(super) kernel: String,
    pub(super) source: Option<Source>,
}

impl About {
    pub(super) fn gather(
        suite: &dyn Suite,
        ground: &Ground,
        source: Option<Source>,
    ) -> Result<Self> {
        let server = process::output(
            Command::new("docker")
                .args(["run", "--rm", "--network", "none", ground.image()])
                .args(["postgres", "--version"]),
        )?;
        Ok(Self {
            facts: suite.facts()?,
            server,
            kernel: kernel_release::version()?,
            source,
        })
    }
}

/// Where results are kept: in the repository, as run.
pub(super) fn directory() -> PathBuf {
    workspace::root().join("conformance/results")
}

impl Outcome {
    /// Compares every run with the first, which is the one without pgs.
    pub(super) fn new(
        name: Name,
        about: About,
        runs: &[Run],
        unsteady: Vec<String>,
        instead: &Rule<'_>,
    ) -> Result<Self> {
        let Facts {
            client,
            tests,
            notes,
        } = about.facts;
        let now = Command::new("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
            .output()?;
        Ok(Self {
            suite: name.text().to_owned(),
            client,
            tests,
            notes,
            ended: String::from_utf8_lossy(&now.stdout).trim().to_owned(),
            server: about.server,
            kernel: about.kernel,
            differing: differing(runs, instead),
            deliberate: deliberate(runs, instead),
            failing_everywhere: failing_everywhere(runs, instead),
            runs: runs.iter().map(|run| counts(run, &about.source)).collect(),
            unsteady,
        })
    }

    /// Whether pgs made no difference.
    pub(super) fn conforms(&self) -> bool {
        self.differing.is_empty()
    }

    pub(super) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    pub(super) fn write(&self) -> Result<()> {
        let path = directory().join(format!("{}.json", self.suite));
        fs::create_dir_all(directory())?;
        let text = self.to_json()? + "\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// What is kept of a suite, if it was ever run.
    pub(super) fn read(name: Name) -> Result<Option<Self>> {
        let path = directory().join(format!("{}.json", name.text()));
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path)?;
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("read {}", path.display()))
    }

    /// Every result there is, in the order of the suites.
    pub(super) fn read_all() -> Result<Vec<Self>> {
        let read = |name: Name| Self::read(name).transpose();
        Name::ALL.into_iter().filter_map(read).collect()
    }

    pub(super) fn report(&self) {
        for difference in &self.differing {
            report::line(format_args!(
                "  ✗ {}: {:?} without pgs, {:?} through pgs ({})",
                difference.test,
                difference.without_pgs,
                difference.through_pgs,
                difference.subject.name()
            ));
        }
        if !self.failing_everywhere.is_empty() {
            report::line(format_args!(
                "  – fails without pgs as with it: {}",
                self.failing_everywhere.join(", ")
            ));
        }
        for Deliberate { reason, tests } in &self.deliberate {
            report::line(format_args!("  – {} on purpose: {reason}", tests.len()));
        }
        if self.conforms() {
            let but = if self.deliberate.is_empty() {
                ""
            } else {
                ", but for these"
            };
            report::line(format_args!(
                "  ✓ every test ends as it does without pgs{but}"
            ));
        }
    }
}

fn counts(run: &Run, source: &Option<Source>) -> Counts {
    Counts {
        subject: run.subject,
        passed: run.count(Verdict::Passed),
        failed: run.count(Verdict::Failed),
        skipped: run.count(Verdict::Skipped),
        seconds: run.seconds,
        encrypted_sessions: run.encrypted_sessions,
        ended: None,
        source: source.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::names_of_differing;
    use super::super::compare::tests::run;
    use super::*;

    #[test]
    fn a_second_try_tells_unsteady_tests_from_those_that_pgs_breaks() {
        use Verdict::{Failed, Passed};
        let mut runs = [
            run(Subject::Direct, &[("steady", Passed), ("unsteady", Failed)]),
            run(Subject::Relay, &[("steady", Failed), ("unsteady", Passed)]),
        ];
        let again = [
            run(Subject::Direct, &[("steady", Passed), ("unsteady", Passed)]),
            run(Subject::Relay, &[("steady", Failed), ("unsteady", Passed)]),
        ];
        let differed = names_of_differing(&runs, &|_, _| None);
        let mut unsteady = Vec::new();
        for (first, second) in runs.iter_mut().zip(&again) {
            unsteady.extend(first.try_again(second, &differed));
        }
        assert_eq!(unsteady, ["unsteady"]);
        let left: Vec<String> = names_of_differing(&runs, &|_, _| None)
            .into_iter()
            .collect();
        assert_eq!(left, ["steady"]);
    }

    #[test]
    fn a_run_without_a_passed_test_is_empty() {
        assert!(run(Subject::Direct, &[("a", Verdict::Failed)]).is_empty());
        assert!(!run(Subject::Direct, &[("a", Verdict::Passed)]).is_empty());
    }
}
