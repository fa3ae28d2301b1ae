//! The tests that `docs/security.md` and `docs/faults.md` name exist, and no promise is without
//! one.
//!
//! In a table whose last column is headed `test`, that column names tests in code quotes:
//! `e2e::isolation::name` is a scenario of `tests/e2e/isolation.rs`, `keeper::serving::name` one of
//! `tests/keeper/serving.rs`, `allocations::login::name` one of `tests/allocations/login.rs`,
//! `tenants::life::name` a test of `tests/tenants/life.rs`,
//! `pgs::protocol::proxy::name` a unit test of that module. A row without one says `none: ` and
//! why.

use super::Finding;
use super::source::Source;

/// Documents with such tables, and what they say.
const DOCUMENTS: [(&str, &str); 2] = [
    ("docs/security.md", "what is promised against whom"),
    (
        "docs/faults.md",
        "what becomes of a session when something fails",
    ),
];
const RULE: &str = "promise";

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    DOCUMENTS
        .iter()
        .flat_map(|(path, says)| check_document(path, says, sources))
        .collect()
}

fn check_document(path: &str, says: &str, sources: &[Source]) -> Vec<Finding> {
    let Some(document) = sources.iter().find(|source| source.path == path) else {
        return vec![Finding {
            path: path.to_owned(),
            line: 0,
            rule: RULE,
            message: format!("is missing; it says {says}"),
        }];
    };
    let mut findings = Vec::new();
    let mut within = false;
    for (index, line) in document.lines.iter().enumerate() {
        let Some(cells) = cells(line) else {
            within = false;
            continue;
        };
        let last = cells.last().copied().unwrap_or_default();
        if last == "test" {
            within = true;
        } else if within && !last.starts_with("---") {
            check_row(document, index, last, sources, &mut findings);
        }
    }
    findings
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

fn check_row(
    document: &Source,
    index: usize,
    cell: &str,
    sources: &[Source],
    findings: &mut Vec<Finding>,
) {
    let named: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
    if named.is_empty() && !cell.starts_with("none: ") {
        let message = "no test holds this; name one, or say `none: ` and why".to_owned();
        findings.push(document.finding(index, RULE, message));
    }
    for name in named.into_iter().filter(|name| !exists(name, sources)) {
        let message = format!("there is no test `{name}`; name the one that holds this");
        findings.push(document.finding(index, RULE, message));
    }
}

/// Whether the module has a test of that name.
fn exists(path: &str, sources: &[Source]) -> bool {
    let mut parts: Vec<_> = path.split("::").collect();
    let (Some(name), true) = (parts.pop(), parts.len() > 1) else {
        return false;
    };
    let (base, written) = match parts[0] {
        "e2e" => ("tests/e2e", format!("\"{name}\",")),
        "allocations" => ("tests/allocations", format!("\"{name}\",")),
        "keeper" => ("tests/keeper", format!("\"{name}\",")),
        "tenants" => ("tests/tenants", format!("fn {name}(")),
        "pgs" => ("pgs-userspace/src", format!("fn {name}(")),
        _ => return false,
    };
    let module = format!("{base}/{}", parts[1..].join("/"));
    let files = [".rs", "/mod.rs", "_tests.rs"].map(|end| format!("{module}{end}"));
    sources
        .iter()
        .filter(|source| files.contains(&source.path))
        .any(|source| source.lines.iter().any(|line| line.contains(&written)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(document: &str) -> Vec<String> {
        let sources = [
            Source::new(DOCUMENTS[0].0, "# No table here"),
            Source::new(DOCUMENTS[1].0, document),
            Source::new("tests/keeper/serving.rs", "(\"kept\", kept),"),
            Source::new(
                "tests/e2e/isolation.rs",
                "const S: &[N] = &[(\"a_test\", a)];",
            ),
            Source::new("tests/e2e/tls/mod.rs", "    (\n \"in_a_list\",\n f),"),
            Source::new("tests/tenants/life.rs", "fn lives() {}"),
            Source::new(
                "pgs-userspace/src/protocol/proxy_tests.rs",
                "fn parses() {}",
            ),
        ];
        check(&sources)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.message))
            .collect()
    }

    #[test]
    fn every_row_names_tests_that_exist() {
        let table = "| promise | test |\n|---|---|\n\
             | a | `e2e::isolation::a_test`, `e2e::tls::in_a_list` |\n\
             | b | `tenants::life::lives` |\n\
             | c | `pgs::protocol::proxy::parses` |\n\
             | d | none: not promised |\n| e | `keeper::serving::kept` |\n\n| other | `table` |\n";
        assert_eq!(messages(table), Vec::<String>::new());
    }

    #[test]
    fn a_row_without_a_test_or_with_one_that_is_not_there_is_found() {
        let table = "| promise | test |\n|---|---|\n| a | |\n| b | `e2e::isolation::gone` |\n\
             | c | `isolation` |\n| d | `x::y::z` |\n";
        let found = messages(table);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("3: no test"), "{found:?}");
        assert!(found[1].contains("`e2e::isolation::gone`"), "{found:?}");
        assert_eq!(check(&[]).len(), DOCUMENTS.len());
    }
}
