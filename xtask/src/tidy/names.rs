//! Words that only some places may use.

use super::Finding;
use super::lexer::is_word;
use super::source::Source;

/// A word in code, and where it may stand.
struct CodeRule {
    rule: &'static str,
    /// What may not be written. Letters at its ends must be the ends of a name.
    words: &'static [&'static str],
    /// Where the rule holds.
    within: &'static [&'static str],
    /// Where it does not, inside of that.
    except: &'static [&'static str],
    /// Whether tests are held to it.
    tests_too: bool,
    way_out: &'static str,
}

const EVERYWHERE: &[&str] = &[""];
const ROUTER: &[&str] = &["pgs-userspace/src/"];
const PROTOCOL: &[&str] = &["pgs-userspace/src/protocol/"];

const CODE_RULES: [CodeRule; 8] = [
    CodeRule {
        rule: "unfinished",
        words: &["todo!", "unimplemented!", "dbg!"],
        within: EVERYWHERE,
        except: &[],
        tests_too: true,
        way_out: "finish it or take it out",
    },
    CodeRule {
        rule: "allow",
        words: &["#[allow(", "#![allow("],
        within: EVERYWHERE,
        except: &[],
        tests_too: true,
        way_out: "use `#[expect(lint, reason = …)]`, which ends with its cause",
    },
    CodeRule {
        rule: "unwrap",
        words: &[".unwrap()"],
        within: EVERYWHERE,
        except: &[],
        tests_too: false,
        way_out: "return the error, or use `expect` with the reason why it cannot happen",
    },
    CodeRule {
        rule: "panic in protocol",
        words: &[".expect(", "panic!", "unreachable!"],
        within: PROTOCOL,
        except: &[],
        tests_too: false,
        way_out: "what a client sends may not end the router: return an error",
    },
    CodeRule {
        rule: "I/O in protocol",
        words: &[
            "std::net",
            "std::fs",
            "tokio",
            "io::Read",
            "io::Write",
            "std::os",
        ],
        within: PROTOCOL,
        except: &[],
        tests_too: false,
        way_out: "the protocol is bytes in, values out; do it in `server`",
    },
    CodeRule {
        rule: "aya",
        words: &["aya", "aya_log"],
        within: ROUTER,
        except: &["pgs-userspace/src/datapath/kernel"],
        tests_too: true,
        way_out: "only `datapath::kernel` knows how the kernel path is loaded",
    },
    CodeRule {
        rule: "bollard",
        words: &["bollard"],
        within: ROUTER,
        except: &["pgs-userspace/src/container"],
        tests_too: true,
        way_out: "only `container` talks to Docker",
    },
    CodeRule {
        rule: "unsafe",
        words: &["unsafe"],
        within: EVERYWHERE,
        except: &["pgs-userspace/src/datapath/", "pgs-common/", "pgs-ebpf/"],
        tests_too: true,
        way_out: "use a safe wrapper (nix, socket2), or put it into `datapath` with its proof",
    },
];

/// Text that would tie the repository to one place.
struct TextRule {
    rule: &'static str,
    parts: &'static [&'static str],
    way_out: &'static str,
}

const TEXT_RULES: [TextRule; 2] = [
    TextRule {
        rule: "package host",
        // In two parts each, so that this file keeps the rule as well.
        parts: &[
            concat!("crates", ".io"),
            concat!("static.rust-", "lang.org"),
            concat!("deb.", "debian.org"),
            concat!("archive.", "ubuntu.com"),
            concat!("apt.", "postgresql.org"),
            concat!("registry-1.", "docker.io"),
            concat!("index.", "docker.io"),
            concat!("gh", "cr.io"),
            concat!("quay", ".io"),
            concat!("pypi", ".org"),
        ],
        way_out: "take it from the machine's own settings",
    },
    TextRule {
        rule: "machine path",
        parts: &["/root/", "/home/", "/work/", "/Users/"],
        way_out: "take it from the environment, or from the workspace's root",
    },
];

/// Files that must name what the text rules forbid.
const TEXT_EXCEPT: [&str; 2] = ["Cargo.lock", "xtask/src/tidy/names.rs"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in &CODE_RULES {
        check_code(source, rule, &mut findings);
    }
    if !TEXT_EXCEPT.contains(&source.path.as_str()) {
        for rule in &TEXT_RULES {
            check_text(source, rule, &mut findings);
        }
    }
    findings
}

fn check_code(source: &Source, rule: &CodeRule, findings: &mut Vec<Finding>) {
    let under = |places: &[&str]| places.iter().any(|place| source.path.starts_with(place));
    if !source.is_rust() || !under(rule.within) || under(rule.except) {
        return;
    }
    let mut check_line = |index: usize, line: &str| {
        for word in rule.words.iter().filter(|word| stands_in(line, word)) {
            findings.push(source.finding(index, rule.rule, format!("`{word}`; {}", rule.way_out)));
        }
    };
    if rule.tests_too {
        source
            .code
            .iter()
            .enumerate()
            .for_each(|(index, line)| check_line(index, line));
    } else {
        source
            .product_code()
            .for_each(|(index, line)| check_line(index, line));
    }
}

fn check_text(source: &Source, rule: &TextRule, findings: &mut Vec<Finding>) {
    for (index, line) in source.lines.iter().enumerate() {
        for part in rule.parts.iter().filter(|part| line.contains(**part)) {
            findings.push(source.finding(index, rule.rule, format!("`{part}`; {}", rule.way_out)));
        }
    }
}

/// Whether `word` stands in the line, not as part of a longer name.
fn stands_in(line: &str, word: &str) -> bool {
    let starts_a_name = word.starts_with(is_word);
    let ends_a_name = word.ends_with(is_word);
    line.match_indices(word).any(|(at, _)| {
        let longer_before = starts_a_name && line[..at].ends_with(is_word);
        let longer_after = ends_a_name && line[at + word.len()..].starts_with(is_word);
        !longer_before && !longer_after
    })
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
        assert_eq!(
            rules("xtask/src/a.rs", "fn a() { todo!() }"),
            ["unfinished"]
        );
        assert_eq!(rules("xtask/src/a.rs", "#[allow(dead_code)]"), ["allow"]);
        assert_eq!(rules("xtask/src/a.rs", "x.unwrap();"), ["unwrap"]);
        assert_eq!(rules("xtask/src/a.rs", "unsafe { f() }"), ["unsafe"]);
        assert_eq!(
            rules("pgs-userspace/src/protocol/a.rs", "use tokio::net;"),
            ["I/O in protocol"]
        );
        assert_eq!(
            rules("pgs-userspace/src/server/a.rs", "use aya::Ebpf;"),
            ["aya"]
        );
        assert_eq!(
            rules("pgs-userspace/src/server/a.rs", "bollard::Docker"),
            ["bollard"]
        );
        assert_eq!(rules("README.md", "see /home/me/pgs"), ["machine path"]);
        assert_eq!(
            rules("deny.toml", concat!("from crates", ".io")),
            ["package host"]
        );
    }

    #[test]
    fn the_places_that_may_are_left_alone() {
        assert!(rules("pgs-userspace/src/datapath/kernel/mod.rs", "use aya::Ebpf;").is_empty());
        assert!(rules("pgs-userspace/src/datapath/socket.rs", "unsafe { f() }").is_empty());
        assert!(rules("xtask/src/a.rs", "#![forbid(unsafe_code)] // unsafe todo!").is_empty());
        assert!(rules("xtask/src/a.rs", "#[cfg(test)]\nmod t {\n x.unwrap();\n}\n").is_empty());
        assert!(rules("Cargo.lock", concat!("crates", ".io")).is_empty());
    }
}
