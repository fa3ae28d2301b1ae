//! Bounds are in one place, each with a unit and a word about what it bounds.

use super::Finding;
use super::source::Source;

const LIMITS: &str = "pgs-userspace/src/config/limits.rs";
/// Its parts.
const PARTS: &str = "pgs-userspace/src/config/limits/";
const RULE: &str = "limits";
/// Counted things whose names are not plural.
const SINGULAR_COUNTS: [&str; 2] = ["BACKLOG", "RESERVED"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if source.path == LIMITS || source.path.starts_with(PARTS) {
        declared(source)
    } else {
        elsewhere(source)
    }
}

fn declared(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.code.iter().enumerate() {
        let Some((name, rest)) = line
            .strip_prefix("pub const ")
            .and_then(|rest| rest.split_once(": "))
        else {
            continue;
        };
        let kind = rest.split([' ', '=']).next().unwrap_or_default();
        // A text, such as Docker's `10m`, has its unit in the value.
        if !["Duration", "&str"].contains(&kind) && !names_a_unit(name) {
            let message = format!(
                "`{name}` has no unit; put what is counted into the name (…_BYTES, SESSIONS_…) \
                 or make it a Duration"
            );
            findings.push(source.finding(index, RULE, message));
        }
        let above = index
            .checked_sub(1)
            .and_then(|above| source.lines.get(above));
        if !above.is_some_and(|line| line.starts_with("///")) {
            let message = format!("`{name}` is not documented; say what it bounds and why so");
            findings.push(source.finding(index, RULE, message));
        }
    }
    findings
}

/// What is counted is a plural: `BYTES`, `SESSIONS`, `READS`.
fn names_a_unit(name: &str) -> bool {
    name.split('_')
        .any(|word| word.ends_with('S') || SINGULAR_COUNTS.contains(&word))
}

/// A wait that is written where it is used is a limit that nobody finds.
fn elsewhere(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("pgs-userspace/src/") {
        return Vec::new();
    }
    source
        .product_code()
        .filter(|(_, line)| literal_duration(line))
        .map(|(index, _)| {
            let message = format!("a wait with a literal; name it in {LIMITS}");
            source.finding(index, RULE, message)
        })
        .collect()
}

fn literal_duration(line: &str) -> bool {
    line.match_indices("Duration::from_").any(|(at, _)| {
        line[at..]
            .split_once('(')
            .is_some_and(|(_, argument)| argument.starts_with(|first: char| first.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_unit_and_a_reason() {
        let good = "/// Why.\npub const FRAME_BYTES_MAX: usize = 1;\n\
                    /// Why.\npub const LOGIN_DEADLINE: Duration = X;\n";
        let part = format!("{PARTS}a.rs");
        assert!(check(&Source::new(LIMITS, good)).is_empty());
        assert!(check(&Source::new(&part, good)).is_empty());
        let bad = "\npub const FRAME_MAX: usize = 1;\n";
        assert_eq!(check(&Source::new(LIMITS, bad)).len(), 2);
        assert_eq!(check(&Source::new(&part, bad)).len(), 2);
    }

    #[test]
    fn a_wait_elsewhere_is_found() {
        let text = "fn f() { sleep(Duration::from_secs(3)); sleep(Duration::from_secs(limit)); }\n";
        assert_eq!(
            check(&Source::new("pgs-userspace/src/server/a.rs", text)).len(),
            1
        );
        assert!(check(&Source::new("xtask/src/a.rs", text)).is_empty());
    }
}
