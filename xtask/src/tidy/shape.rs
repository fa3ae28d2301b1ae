//! The shape of files: length, width, a word about what each is for.

use super::Finding;
use super::source::Source;

const LINES_MAX: usize = 400;
const COLUMNS_MAX: usize = 100;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !is_written_here(&source.path) {
        return findings;
    }
    if source.lines.len() > LINES_MAX {
        let message = format!(
            "{} lines, the limit is {LINES_MAX}; split it along the ideas in it",
            source.lines.len()
        );
        findings.push(source.file_finding("file length", message));
    }
    for (index, line) in source.lines.iter().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            let message = format!("{columns} columns, the limit is {COLUMNS_MAX}; break the line");
            findings.push(source.finding(index, "width", message));
        }
        if line.ends_with([' ', '\t']) {
            findings.push(source.finding(index, "trailing blanks", "remove them"));
        }
    }
    if source.is_rust() && !has_module_documentation(source) {
        let message = "no `//!` at the top; say what the file is for and what holds in it";
        findings.push(source.file_finding("module documentation", message));
    }
    findings
}

/// Source and scripts; prose has one sentence a line and is as wide as that is.
fn is_written_here(path: &str) -> bool {
    [".rs", ".sh"].iter().any(|suffix| path.ends_with(suffix)) || path == ".ci/run"
}

fn has_module_documentation(source: &Source) -> bool {
    source
        .lines
        .iter()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.starts_with("//!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&Source::new(path, text))
            .iter()
            .map(|finding| finding.rule)
            .collect()
    }

    #[test]
    fn each_rule_finds_its_violation() {
        assert_eq!(rules("a.rs", "fn a() {}\n"), ["module documentation"]);
        assert_eq!(rules("a.rs", &"//! x\n".repeat(401)), ["file length"]);
        assert_eq!(
            rules("a.rs", &format!("//! {}\n", "é".repeat(97))),
            ["width"]
        );
        assert_eq!(rules("a.sh", "x \n"), ["trailing blanks"]);
    }

    #[test]
    fn a_tidy_file_and_prose_are_left_alone() {
        assert!(rules("a.rs", "//! What it is for.\n").is_empty());
        assert!(rules("a.md", &"wide ".repeat(50)).is_empty());
    }
}
