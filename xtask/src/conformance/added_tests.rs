//! What stays of stored results, what new ones replace, and where the two are kept apart.

use super::*;
use crate::conformance::compare::Due;
use crate::conformance::suite::Facts;
use serde_json::{Value, json};

const REASON: &str = "So it is.";

fn outcome(ended: &str, runs: &[(&str, usize)], failing: &[&str], more: &Value) -> Outcome {
    let run = |(subject, failed): &(&str, usize)| {
        json!({
            "subject": subject, "passed": 7, "failed": failed, "skipped": 0, "seconds": 1,
        })
    };
    let mut whole = json!({
        "suite": "jdbc", "client": "libx 1", "tests": "its own", "notes": [], "ended": ended,
        "server": "postgres 18", "kernel": "6", "runs": runs.iter().map(run).collect::<Vec<_>>(),
        "differing": [], "failing_everywhere": failing, "unsteady": [],
    });
    for (key, value) in more.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn about(client: &str, server: &str) -> About {
    About {
        facts: Facts {
            client: client.to_owned(),
            tests: "its own".to_owned(),
            notes: Vec::new(),
        },
        server: server.to_owned(),
        kernel: "6-builder".to_owned(),
        source: None,
    }
}

fn rule(subject: Subject, test: &str) -> Option<Due> {
    (subject == Subject::Tls && test == "a").then(|| Due::pass("b", REASON))
}

fn difference(test: &str, subject: &str) -> Value {
    json!({
        "test": test, "subject": subject, "without_pgs": "passed", "through_pgs": "failed",
    })
}

#[test]
fn only_results_of_the_same_versions_are_added_to() {
    let stored = outcome("then", &[("direct", 0)], &[], &json!({}));
    assert!(same_versions(&stored, &about("libx 1", "postgres 18")).is_ok());
    for other in [
        about("libx 2", "postgres 18"),
        about("libx 1", "postgres 19"),
    ] {
        let error = same_versions(&stored, &other).unwrap_err().to_string();
        assert!(error.contains("cargo xtask conformance jdbc"), "{error}");
    }
}

#[test]
fn the_others_stay_as_they_were() {
    let more = json!({
        "differing": [difference("old", "tls"), difference("kept", "relay")],
        "deliberate": [{ "reason": "Was so.",
                         "tests": [{ "without_pgs": "a", "through_pgs": "z" }] }],
    });
    let runs = [("direct", 1), ("relay", 2), ("tls", 3)];
    let source = |commit: &str, changed| {
        let source = json!({ "commit": commit, "changed": changed });
        serde_json::from_value(source).unwrap()
    };
    let mut was = outcome("then", &runs, &["f"], &more);
    was.runs[0].source = source("old", false);
    let stored = Stored {
        outcome: was,
        again: vec![Subject::Tls],
    };
    let more = json!({
        "differing": [difference("new", "tls")],
        "deliberate": [{ "reason": REASON,
                         "tests": [{ "without_pgs": "a", "through_pgs": "b" }] }],
    });
    let mut new = outcome("now", &[("direct", 1), ("tls", 4)], &["f"], &more);
    for run in &mut new.runs {
        run.source = source("new", true);
    }
    let both = stored.and(new, &rule).unwrap();
    let short: Vec<_> = both
        .runs
        .iter()
        .map(|run| (run.subject, run.failed, run.ended.as_deref()))
        .collect();
    let expected = [
        (Subject::Direct, 1, None),
        (Subject::Relay, 2, None),
        (Subject::Tls, 4, Some("now")),
    ];
    assert_eq!(short, expected);
    assert_eq!(both.ended, "then");
    let sources: Vec<_> = both.runs.iter().map(|run| run.source.clone()).collect();
    let shown = sources
        .iter()
        .map(|source| source.as_ref().map(ToString::to_string));
    let expected = [Some("commit old"), None, Some("commit new with changes")];
    assert!(
        shown.eq(expected.map(|text| text.map(str::to_owned))),
        "{sources:?}"
    );
    let differing: Vec<&str> = both.differing.iter().map(|one| &*one.test).collect();
    assert_eq!(differing, ["kept", "new"]);
    let reasons: Vec<&str> = both.deliberate.iter().map(|one| &*one.reason).collect();
    assert_eq!(reasons, [REASON]);
    assert_eq!(both.failing_everywhere, ["f"]);
}

#[test]
fn another_result_without_pgs_is_not_mixed_with_the_stored_one() {
    for failing in [&["g"][..], &[]] {
        let stored = Stored {
            outcome: outcome("then", &[("direct", 1), ("relay", 1)], &["f"], &json!({})),
            again: vec![Subject::Tls],
        };
        let new = outcome("now", &[("direct", 1), ("tls", 1)], failing, &json!({}));
        let error = stored.and(new, &rule).err().unwrap().to_string();
        assert!(error.contains("failed: f"), "{error}");
    }
}
