//! `docs/clients.md`, made from the results: what is in it was run.

use super::compare::Instead;
use super::endpoint::Subject;
use super::outcome::{Counts, Outcome};
use super::suite::Name;
use crate::workspace;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;

const HEAD: &str = "\
# Clients

Each client's test suite was run against a tenant's server without pgs and through it. \
pgs conforms where every test ends as it does without pgs. \
Where it does otherwise on purpose, what has to come instead is derived from the result without \
pgs, and anything else differs; the reasons are below. \
`cargo xtask conformance all` runs everything and writes this page; \
`cargo xtask conformance --list` says what there is. \
What follows is as run; the JSON files in `conformance/results` have the rest.
";

/// What a reader must know to read the counts.
const KEY: &str = "\
Counts are passed / failed / skipped. \
*Without pgs* is the tenant's server itself, whose Unix socket socat gives a port; \
for `negotiation` it is a PostgreSQL server with a port and certificates of its own. \
Each run has a new tenant.

*Relay, TLS* is the relay with a certificate and `--tls-required`: nobody gets in unencrypted, \
clients verify the certificate by its authority and its name, and the run fails unless the router \
says of every single session that it was encrypted. \
It is compared with the same run as the others, the one without pgs and without TLS. \
A – is where no client can be told to: `tokio-postgres`' tests ask for `NoTls`, each by itself; \
in `negotiation` TLS is what is tested, on every path.
";

/// In the order of the page.
const COLUMNS: [Subject; 4] = [
    Subject::Direct,
    Subject::Relay,
    Subject::Kernel,
    Subject::Tls,
];

/// Writes the page from all results that are kept.
pub(super) fn write() -> Result<()> {
    let path = workspace::root().join("docs/clients.md");
    fs::write(&path, render(&Outcome::read_all()?)?)
        .with_context(|| format!("write {}", path.display()))
}

fn render(outcomes: &[Outcome]) -> Result<String> {
    let mut page = format!("{HEAD}\n{KEY}\n");
    page.push_str("| suite | client | without pgs | relay | kernel | relay, TLS | differs |\n");
    page.push_str("|---|---|---|---|---|---|---|\n");
    for outcome in outcomes {
        let Outcome {
            suite,
            client,
            runs,
            differing,
            deliberate,
            ..
        } = outcome;
        let cell = |subject| {
            let run = runs.iter().find(|run| run.subject == subject);
            run.map_or_else(|| without_counts(suite, subject).to_owned(), counts)
        };
        let cells = COLUMNS.map(cell).join(" | ");
        let on_purpose: usize = deliberate.iter().map(|one| one.tests.len()).sum();
        let differs = match (differing.len(), on_purpose) {
            (0, 0) => "nothing".to_owned(),
            (0, on_purpose) => format!("{on_purpose} tests, on purpose"),
            (count, 0) => format!("{count} tests"),
            (count, on_purpose) => format!("{count} tests, and {on_purpose} on purpose"),
        };
        writeln!(page, "| `{suite}` | {client} | {cells} | {differs} |")?;
    }
    for outcome in outcomes {
        page.push_str(&section(outcome)?);
    }
    Ok(page)
}

fn section(outcome: &Outcome) -> Result<String> {
    let mut text = format!("\n## {}\n\n", outcome.suite);
    let Outcome {
        client,
        tests,
        server,
        kernel,
        ended,
        ..
    } = outcome;
    write!(
        text,
        "{client}. Tests: {tests}. Server: {server}. Linux {kernel}; ended {ended}"
    )?;
    // Those that have no time of their own were run together.
    if let Some(run) = outcome.runs.iter().find(|run| run.ended.is_none()) {
        text += &source(run);
    }
    for run in &outcome.runs {
        if let Some(ended) = &run.ended {
            write!(text, ", {} {ended}{}", title(run.subject), source(run))?;
        }
    }
    text.push_str(".\n\n");
    for note in &outcome.notes {
        writeln!(text, "- {note}")?;
    }
    for run in &outcome.runs {
        if let Some(sessions) = run.encrypted_sessions {
            writeln!(text, "- Over TLS: {sessions} sessions, all encrypted.")?;
        }
    }
    for difference in &outcome.differing {
        writeln!(
            text,
            "- Differs: `{}` is {:?} without pgs and {:?} through it ({}).{}",
            difference.test,
            difference.without_pgs,
            difference.through_pgs,
            title(difference.subject),
            of_time(&outcome.suite, &difference.test)
        )?;
    }
    for deliberate in &outcome.deliberate {
        let (count, reason) = (deliberate.tests.len(), &deliberate.reason);
        write!(text, "- On purpose, {count} tests: {reason}")?;
        if let Some(first) = deliberate.tests.first() {
            write!(text, " {}", example(first))?;
        }
        writeln!(text)?;
    }
    if !outcome.failing_everywhere.is_empty() {
        writeln!(
            text,
            "- Fails without pgs as with it: `{}`.",
            outcome.failing_everywhere.join("`, `")
        )?;
    }
    if !outcome.unsteady.is_empty() {
        writeln!(
            text,
            "- Ended differently in two runs of the same, so run twice: `{}`.",
            outcome.unsteady.join("`, `")
        )?;
    }
    Ok(text)
}

/// What is to be known of a test that passes now and then, whoever answers it.
fn of_time(suite: &str, test: &str) -> &'static str {
    if suite != "psycopg" {
        ""
    } else if test.contains("test_stats_usage") {
        " It allows 1250 ms for six queries of 200 ms by three threads at once; on the same \
         machine the tenant's socket, without pgs and without TLS, came to 1278, and TLS through \
         pgs to 1316 and 1324, where a transaction of `pgbench -S` takes 0.19 ms."
    } else if test.contains("test_reconnect") {
        " It compares the times of attempts to connect with what they are to be, and passes now \
         and then."
    } else {
        ""
    }
}

/// Of what commit it was, where the results say it.
fn source(run: &Counts) -> String {
    let source = run.source.as_ref();
    source.map_or_else(String::new, |source| format!(" ({source})"))
}

/// The part that both have in common is said once.
fn example(test: &Instead) -> String {
    let (without, through) = (&test.without_pgs, &test.through_pgs);
    match (without.split_once(" -> "), through.split_once(" -> ")) {
        (Some((head, without)), Some((_, through))) => {
            format!("For one, `{head}`: `{without}` without pgs, `{through}` through it.")
        }
        _ => format!("For one, `{without}` without pgs, `{through}` through it."),
    }
}

/// What stands where a suite was not run on a subject.
fn without_counts(suite: &str, subject: Subject) -> &'static str {
    let applies = |name: &Name| name.text() != suite || name.runs_on(subject);
    if Name::ALL.iter().all(applies) {
        "not run"
    } else {
        "–"
    }
}

/// As the page calls it.
fn title(subject: Subject) -> &'static str {
    match subject {
        Subject::Direct => "without pgs",
        Subject::Relay => "relay",
        Subject::Kernel => "kernel",
        Subject::Tls => "relay with TLS",
    }
}

fn counts(run: &Counts) -> String {
    format!("{} / {} / {}", run.passed, run.failed, run.skipped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_says_what_was_run_and_what_differs() {
        let run = |subject, failed| {
            json!({
                "subject": subject, "passed": 7, "failed": failed, "skipped": 1, "seconds": 2,
            })
        };
        let mut late = run("tls", 0);
        late["ended"] = "later".into();
        late["encrypted_sessions"] = 12.into();
        let mut outcome = json!({
            "suite": "x", "client": "libx 1", "tests": "its own", "notes": ["A note."],
            "ended": "then", "server": "postgres 18", "kernel": "6",
            "runs": [run("direct", 0), run("relay", 1), late],
            "differing": [{ "test": "t", "subject": "relay", "without_pgs": "passed",
                            "through_pgs": "failed" }],
            "deliberate": [{ "reason": "So it is.",
                             "tests": [{ "without_pgs": "a -> w", "through_pgs": "a -> x" }] }],
            "failing_everywhere": ["u"], "unsteady": ["v"],
        });
        let page = render(&[serde_json::from_value(outcome.clone()).unwrap()]).unwrap();
        assert!(page.contains(
            "| `x` | libx 1 | 7 / 0 / 1 | 7 / 1 / 1 | not run | 7 / 0 / 1 | \
             1 tests, and 1 on purpose |"
        ));
        assert!(page.contains("- Over TLS: 12 sessions, all encrypted.\n"));
        assert!(page.contains("ended then, relay with TLS later.\n"));
        let mut of = |commit: &str, changed, at: usize| {
            let source = json!({ "commit": commit, "changed": changed });
            outcome["runs"][at]["source"] = source;
        };
        of("abc1234", false, 0);
        of("def5678", true, 2);
        let page = render(&[serde_json::from_value(outcome.clone()).unwrap()]).unwrap();
        assert!(page.contains(
            "ended then (commit abc1234), relay with TLS later (commit def5678 with changes).\n"
        ));
        assert!(page.contains("1 tests: So it is. For one, `a`: `w` without pgs, `x` through it."));
        assert!(page.contains("`t` is Passed without pgs and Failed through it (relay)"));
        assert!(page.contains("A note.") && page.contains("as with it: `u`"));
        assert!(page.contains("so run twice: `v`"));
    }

    /// Those that are kept, which may be older than what is written now.
    #[test]
    fn the_page_of_the_kept_results_is_the_one_that_is_there() {
        let page = render(&Outcome::read_all().unwrap()).unwrap();
        let path = workspace::root().join("docs/clients.md");
        assert_eq!(page, fs::read_to_string(path).unwrap());
    }

    #[test]
    fn a_suite_without_tls_is_told_from_one_that_was_not_run() {
        assert_eq!(without_counts("tokio-postgres", Subject::Tls), "–");
        assert_eq!(without_counts("tokio-postgres", Subject::Kernel), "not run");
        assert_eq!(without_counts("jdbc", Subject::Tls), "not run");
    }
}
