//! Reading what Rust's test runner prints.

use super::outcome::{Tests, Verdict};

/// Every `test <name> ... <result>` of every test binary. What a test printed may stand between
/// name and result, or before the next line's `test`.
pub(super) fn parse(text: &str) -> Tests {
    let mut tests = Tests::new();
    let mut binary = String::new();
    for line in text.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("Running ") {
            binary = rest
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned();
            continue;
        }
        let Some((name, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        else {
            continue;
        };
        let verdict = match result.split([',', ' ']).next() {
            Some("ok") => Verdict::Passed,
            Some("ignored") => Verdict::Skipped,
            _ => Verdict::Failed,
        };
        tests.insert(format!("{binary}: {name}"), verdict);
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_names_and_results_are_read() {
        let text = "     Running tests/a.rs (target/debug/deps/a-1)\n\
                    test types::one ... ok\n\
                    test two ... FAILED\n\
                    test three ... ignored, needs a moon\n\
                    test result: FAILED. 1 passed; 1 failed\n\
                    \x20    Running tests/b.rs (target/debug/deps/b-1)\n\
                    test two ... ok\n";
        let tests = parse(text);
        assert_eq!(tests.len(), 4);
        assert_eq!(tests["tests/a.rs: types::one"], Verdict::Passed);
        assert_eq!(tests["tests/a.rs: two"], Verdict::Failed);
        assert_eq!(tests["tests/a.rs: three"], Verdict::Skipped);
        assert_eq!(tests["tests/b.rs: two"], Verdict::Passed);
    }
}
