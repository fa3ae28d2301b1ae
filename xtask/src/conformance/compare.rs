//! The runs through pgs beside the one without it: what differs, and what is to differ.

use super::endpoint::Subject;
use super::outcome::{Run, Tests, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A test that ends one way without pgs and another way with it.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    pub(super) test: String,
    pub(super) subject: Subject,
    pub(super) without_pgs: Verdict,
    pub(super) through_pgs: Verdict,
}

/// What pgs does otherwise on purpose, and why.
#[derive(Serialize, Deserialize)]
pub(super) struct Deliberate {
    pub(super) reason: String,
    pub(super) tests: Vec<Instead>,
}

/// One test of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Instead {
    pub(super) without_pgs: String,
    pub(super) through_pgs: String,
}

/// Which tests end differently on some subject.
pub(super) fn names_of_differing(runs: &[Run], instead: &Rule<'_>) -> BTreeSet<String> {
    let tests = differing(runs, instead)
        .into_iter()
        .map(|difference| difference.test);
    tests.collect()
}

/// What has to come through pgs instead of a test without it.
#[derive(Clone)]
pub(super) struct Due {
    pub(super) test: String,
    pub(super) verdict: Verdict,
    pub(super) reason: &'static str,
}

impl Due {
    /// A test that has to pass.
    pub(super) fn pass(test: impl Into<String>, reason: &'static str) -> Self {
        Self {
            test: test.into(),
            verdict: Verdict::Passed,
            reason,
        }
    }
}

/// What is due on a subject for a test, if that is not the same.
pub(super) type Rule<'a> = dyn Fn(Subject, &str) -> Option<Due> + 'a;

pub(super) fn differing(runs: &[Run], instead: &Rule<'_>) -> Vec<Difference> {
    let Some((direct, others)) = runs.split_first() else {
        return Vec::new();
    };
    let compare = |run: &Run| -> Vec<Difference> {
        let expected: Tests = direct
            .tests
            .iter()
            .map(|(test, verdict)| match instead(run.subject, test) {
                Some(due) => (due.test, due.verdict),
                None => (test.clone(), *verdict),
            })
            .collect();
        let verdict = |test: &String| expected.get(test).copied().unwrap_or(Verdict::Absent);
        let tests: BTreeSet<&String> = expected.keys().chain(run.tests.keys()).collect();
        let difference = |test: &String| Difference {
            test: test.clone(),
            subject: run.subject,
            without_pgs: verdict(test),
            through_pgs: run.verdict(test),
        };
        tests
            .into_iter()
            .map(difference)
            .filter(|one| one.without_pgs != one.through_pgs)
            .collect()
    };
    others.iter().flat_map(compare).collect()
}

/// By reason, what is done instead, on every subject that has to.
pub(super) fn deliberate(runs: &[Run], instead: &Rule<'_>) -> Vec<Deliberate> {
    let mut found: BTreeMap<&str, Vec<Instead>> = BTreeMap::new();
    let Some((direct, others)) = runs.split_first() else {
        return Vec::new();
    };
    for (test, verdict) in &direct.tests {
        let mut due = others
            .iter()
            .filter_map(|run| Some((run, instead(run.subject, test)?)))
            .peekable();
        let Some((_, first)) = due.peek().cloned() else {
            continue;
        };
        // Else it is among what differs.
        if due.all(|(run, due)| run.verdict(&due.test) == due.verdict) {
            found
                .entry(first.reason)
                .or_default()
                .push(Instead::of(test, *verdict, first));
        }
    }
    let reasons = found.into_iter().map(|(reason, tests)| Deliberate {
        reason: reason.to_owned(),
        tests,
    });
    reasons.collect()
}

impl Instead {
    /// Whether it is what a subject has to do.
    pub(super) fn is_due(&self, subject: Subject, instead: &Rule<'_>) -> bool {
        // A test whose name stays has how it ended behind it.
        let name = self.without_pgs.rsplit_once(" -> ").map(|(name, _)| name);
        [Some(&*self.without_pgs), name]
            .into_iter()
            .flatten()
            .any(|test| instead(subject, test).is_some())
    }

    /// A test of the same name is told from the one without pgs by how it ended.
    fn of(test: &str, verdict: Verdict, due: Due) -> Self {
        if test == due.test {
            return Self {
                without_pgs: format!("{test} -> {verdict:?}"),
                through_pgs: format!("{test} -> {:?}", due.verdict),
            };
        }
        Self {
            without_pgs: test.to_owned(),
            through_pgs: due.test,
        }
    }
}

/// What fails without pgs, and with it wherever nothing else is due.
pub(super) fn failing_everywhere(runs: &[Run], instead: &Rule<'_>) -> Vec<String> {
    let Some(direct) = runs.first() else {
        return Vec::new();
    };
    let fails = |test: &&String| {
        runs.iter()
            .all(|run| run.verdict(test) == Verdict::Failed || instead(run.subject, test).is_some())
    };
    let failed = direct
        .tests
        .iter()
        .filter(|(_, verdict)| **verdict == Verdict::Failed);
    failed
        .map(|(test, _)| test)
        .filter(fails)
        .cloned()
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::conformance) fn run(subject: Subject, tests: &[(&str, Verdict)]) -> Run {
        let tests = tests
            .iter()
            .map(|(name, verdict)| ((*name).to_owned(), *verdict));
        Run::new(subject, tests.collect(), 1)
    }

    #[test]
    fn what_fails_only_through_pgs_or_is_gone_differs() {
        use Verdict::{Absent, Failed, Passed};
        let runs = [
            run(
                Subject::Direct,
                &[("a", Passed), ("b", Failed), ("c", Passed)],
            ),
            run(Subject::Kernel, &[("a", Failed), ("b", Failed)]),
        ];
        let found = differing(&runs, &|_, _| None);
        let short: Vec<_> = found
            .iter()
            .map(|one| (one.test.as_str(), one.without_pgs, one.through_pgs))
            .collect();
        assert_eq!(short, [("a", Passed, Failed), ("c", Passed, Absent)]);
        assert_eq!(failing_everywhere(&runs, &|_, _| None), ["b"]);
    }

    #[test]
    fn what_is_to_differ_must_differ_just_so() {
        use Verdict::{Absent, Passed};
        let rule = |_, test: &str| (test == "a: in").then(|| Due::pass("a: out", "why"));
        let through = |result| {
            let direct = run(Subject::Direct, &[("a: in", Passed), ("b: in", Passed)]);
            [
                direct,
                run(Subject::Relay, &[(result, Passed), ("b: in", Passed)]),
            ]
        };
        let runs = through("a: out");
        assert_eq!(differing(&runs, &rule), []);
        let listed = deliberate(&runs, &rule);
        assert_eq!(
            (listed[0].reason.as_str(), listed[0].tests.len()),
            ("why", 1)
        );
        // As without pgs is then as wrong as anything else.
        for result in ["a: in", "a: lost"] {
            let runs = through(result);
            let found = differing(&runs, &rule);
            assert_eq!(found.len(), 2, "{found:?}");
            assert!(
                found
                    .iter()
                    .any(|one| one.test == "a: out" && one.through_pgs == Absent)
            );
            assert_eq!(deliberate(&runs, &rule).len(), 0);
        }
    }
    #[test]
    fn what_is_to_pass_over_tls_alone_is_said_and_fails_elsewhere() {
        use Verdict::{Failed, Passed};
        let rule = |subject, test: &str| {
            (subject == Subject::Tls && test == "a").then(|| Due::pass("a", "why"))
        };
        let over_tls = |verdict| {
            [
                run(Subject::Direct, &[("a", Failed), ("b", Passed)]),
                run(Subject::Relay, &[("a", Failed), ("b", Passed)]),
                run(Subject::Tls, &[("a", verdict), ("b", Passed)]),
            ]
        };
        let runs = over_tls(Passed);
        assert_eq!(differing(&runs, &rule), []);
        assert_eq!(failing_everywhere(&runs, &rule), ["a"]);
        let listed = deliberate(&runs, &rule);
        assert_eq!(listed[0].tests[0].without_pgs, "a -> Failed");
        assert_eq!(listed[0].tests[0].through_pgs, "a -> Passed");
        let found = differing(&over_tls(Failed), &rule);
        assert_eq!((found.len(), found[0].subject), (1, Subject::Tls));
        assert_eq!(deliberate(&over_tls(Failed), &rule).len(), 0);
    }
}
