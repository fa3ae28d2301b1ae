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

/// What has to come through pgs instead of a test without it, and why.
pub(super) type Rule<'a> = dyn Fn(&str) -> Option<(String, &'static str)> + 'a;

pub(super) fn differing(runs: &[Run], instead: &Rule<'_>) -> Vec<Difference> {
    let Some((direct, others)) = runs.split_first() else {
        return Vec::new();
    };
    let expected: Tests = direct
        .tests
        .iter()
        .map(|(test, verdict)| {
            let other = instead(test).map(|(other, _)| other);
            (other.unwrap_or_else(|| test.clone()), *verdict)
        })
        .collect();
    let verdict = |test: &String| expected.get(test).copied().unwrap_or(Verdict::Absent);
    let compare = |run: &Run| -> Vec<Difference> {
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

/// By reason, what every subject does instead.
pub(super) fn deliberate(runs: &[Run], instead: &Rule<'_>) -> Vec<Deliberate> {
    let mut found: BTreeMap<&str, Vec<Instead>> = BTreeMap::new();
    let Some((direct, others)) = runs.split_first() else {
        return Vec::new();
    };
    for without_pgs in direct.tests.keys() {
        let Some((through_pgs, reason)) = instead(without_pgs) else {
            continue;
        };
        // Else it is among what differs.
        if others
            .iter()
            .all(|run| run.tests.contains_key(&through_pgs))
        {
            found.entry(reason).or_default().push(Instead {
                without_pgs: without_pgs.clone(),
                through_pgs,
            });
        }
    }
    let reasons = found.into_iter().map(|(reason, tests)| Deliberate {
        reason: reason.to_owned(),
        tests,
    });
    reasons.collect()
}

pub(super) fn failing_everywhere(runs: &[Run]) -> Vec<String> {
    let Some(direct) = runs.first() else {
        return Vec::new();
    };
    let fails = |test: &&String| runs.iter().all(|run| run.verdict(test) == Verdict::Failed);
    direct.tests.keys().filter(fails).cloned().collect()
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
        let found = differing(&runs, &|_| None);
        let short: Vec<_> = found
            .iter()
            .map(|one| (one.test.as_str(), one.without_pgs, one.through_pgs))
            .collect();
        assert_eq!(short, [("a", Passed, Failed), ("c", Passed, Absent)]);
        assert_eq!(failing_everywhere(&runs), ["b"]);
    }

    #[test]
    fn what_is_to_differ_must_differ_just_so() {
        use Verdict::{Absent, Passed};
        let rule = |test: &str| (test == "a: in").then(|| ("a: out".to_owned(), "why"));
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
}
