//! What the start-up canaries found, in one line: for `pgs status` and `pgs doctor`.

use crate::admin::request::CanaryReport;

/// All passed, or which failed and why. `None` where none was run.
pub(super) fn summary(canaries: &[CanaryReport], milliseconds: Option<u64>) -> Option<String> {
    if canaries.is_empty() {
        return None;
    }
    let all = canaries.len();
    let failed: Vec<_> = canaries
        .iter()
        .filter(|canary| !canary.passed)
        .map(|canary| format!("{}: {}", canary.name, canary.detail))
        .collect();
    let took = milliseconds.map_or_else(String::new, |count| format!(", in {count} ms"));
    Some(match failed.len() {
        0 => format!("all {all} passed{took}"),
        count => format!("{count} of {all} failed{took}: {}", failed.join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, passed: bool) -> CanaryReport {
        CanaryReport {
            name: name.into(),
            passed,
            detail: "as seen".into(),
        }
    }

    #[test]
    fn who_failed_is_named_with_the_reason() {
        let mut canaries = [report("one", true), report("two", true)];
        let line = summary(&canaries, Some(40));
        assert_eq!(line.as_deref(), Some("all 2 passed, in 40 ms"));
        canaries[1].passed = false;
        let line = summary(&canaries, None);
        assert_eq!(line.as_deref(), Some("1 of 2 failed: two: as seen"));
        assert_eq!(summary(&[], None), None);
    }
}
