//! Features of other crates that nobody may turn on. Where one brings a dependency along, it shows
//! in `Cargo.lock`, whoever of those that depend on the crate has asked for it.

use super::Finding;
use super::source::Source;

const LOCK: &str = "Cargo.lock";

/// A dependency that a crate may not have.
struct Rule {
    package: &'static str,
    dependency: &'static str,
    way_out: &'static str,
}

const RULES: [Rule; 1] = [Rule {
    package: "rustls",
    dependency: "log",
    way_out: "leave its feature `logging` out, and that of what depends on it: it writes what \
              clients send, past the bound of `server::strangers`",
}];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if source.path != LOCK {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut package = "";
    for (index, line) in source.lines.iter().enumerate() {
        if let Some(name) = line.strip_prefix("name = ") {
            package = name.trim_matches('"');
        }
        let Some(dependency) = listed(line) else {
            continue;
        };
        let broken = RULES
            .iter()
            .filter(|rule| rule.package == package && rule.dependency == dependency);
        for rule in broken {
            let message = format!("`{package}` has `{dependency}`; {}", rule.way_out);
            findings.push(source.finding(index, "dependency", message));
        }
    }
    findings
}

/// The name in a line of a list of dependencies; where there are several versions, one follows it.
fn listed(line: &str) -> Option<&str> {
    let entry = line.strip_prefix(" \"")?.strip_suffix("\",")?;
    entry.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, dependencies: [&str; 2]) -> Vec<usize> {
        let packages = ["tokio-postgres", "rustls"].into_iter().zip(dependencies);
        let text: String = packages
            .map(|(name, dependency)| {
                format!(
                    "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\ndependencies = [\n \
                     \"{dependency}\",\n \"ring\",\n]\n\n"
                )
            })
            .collect();
        let findings = check(&Source::new(path, &text));
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_dependency_that_a_crate_may_not_have_is_found() {
        assert_eq!(lines(LOCK, ["log", "log"]), [13]);
        assert_eq!(lines(LOCK, ["once_cell", "log 0.4.28"]), [13]);
    }

    #[test]
    fn other_crates_and_other_dependencies_are_left_alone() {
        assert!(lines(LOCK, ["log", "logos"]).is_empty());
        assert!(lines("docs/Cargo.lock", ["log", "log"]).is_empty());
    }
}
