//! What the emulated machine says on its serial line.

use std::fmt;

/// Before each line of the guest's own script.
const MARK: &str = "pgs-guest: ";

/// What has been said of one kernel.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    kernel: String,
    fault: Option<String>,
    done: bool,
    parts: Vec<(String, Said)>,
}

#[derive(Debug, Default)]
struct Said {
    counts: Counts,
    status: Option<i32>,
}

/// Tests, by what their runner says of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Passed(Counts),
    Failed(Counts),
    /// The machine ended before it, or within it.
    Never,
}

impl Transcript {
    /// That of a kernel under which nothing was run.
    pub(super) fn of_nothing(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            ..Self::default()
        }
    }

    /// Takes a line; true where it is worth showing.
    pub(super) fn take(&mut self, line: &str) -> bool {
        // The firmware draws on the screen before the first line of the guest.
        if let Some((_, said)) = line.split_once(MARK) {
            self.take_own(said.trim());
            return false;
        }
        let Some((_, part)) = self
            .parts
            .last_mut()
            .filter(|(_, part)| part.status.is_none())
        else {
            return false;
        };
        let counts = &mut part.counts;
        counts.passed += number_before(line, " passed;");
        counts.failed += number_before(line, " failed;");
        counts.skipped += number_before(line, " ignored;");
        !line.trim().is_empty()
    }

    fn take_own(&mut self, said: &str) {
        let mut words = said.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("kernel"), Some(release), None) => release.clone_into(&mut self.kernel),
            (Some("begin"), Some(name), None) => {
                self.parts.push((name.to_owned(), Said::default()));
            }
            (Some("end"), Some(name), Some(status)) => {
                if let Some((_, part)) = self.parts.iter_mut().find(|(part, _)| part == name) {
                    part.status = status.parse().ok();
                }
            }
            (Some("done"), None, None) => self.done = true,
            (Some("fault"), ..) => self.fault = Some(said["fault".len()..].trim().to_owned()),
            _ => {}
        }
    }

    /// What `uname -r` said.
    pub(super) fn kernel(&self) -> &str {
        &self.kernel
    }

    /// What kept it from running anything.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Whether it came to the end of what there was to run.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// What became of a part. One whose tests were all skipped has not passed.
    pub(super) fn ended(&self, name: &str) -> Ended {
        let part = self.parts.iter().find(|(part, _)| part == name);
        let Some((said, status)) = part.and_then(|(_, said)| Some((said, said.status?))) else {
            return Ended::Never;
        };
        let counts = said.counts;
        let nothing = counts.passed == 0 && counts.skipped > 0;
        if status == 0 && counts.failed == 0 && !nothing {
            Ended::Passed(counts)
        } else {
            Ended::Failed(counts)
        }
    }
}

/// The number in front of this in a line that begins as the runner's last one does, else 0.
fn number_before(line: &str, after: &str) -> usize {
    let number = line
        .starts_with("test result: ")
        .then(|| line.split(after).next()?.rsplit([' ', ';']).next());
    number
        .flatten()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, counts) = match self {
            Self::Never => return out.write_str("not run"),
            Self::Passed(counts) => ("passed", counts),
            Self::Failed(counts) => ("failed", counts),
        };
        let Counts {
            passed,
            failed,
            skipped,
        } = counts;
        if *counts == Counts::default() {
            return out.write_str(word);
        }
        write!(out, "{word}: {passed} / {failed} / {skipped}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &[&str]) -> Transcript {
        let mut transcript = Transcript::default();
        for line in lines {
            transcript.take(line);
        }
        transcript
    }

    #[test]
    fn parts_are_judged_by_their_status_and_their_counts() {
        let result = |counts: &str| format!("test result: ok. {counts}; 0 measured");
        let transcript = taken(&[
            "\u{1b}c\u{1b}[2Jpgs-guest: kernel 6.1.0-9-amd64",
            "pgs-guest: begin canaries",
            "kernel  good",
            "pgs-guest: end canaries 0",
            "pgs-guest: begin one",
            &result("7 passed; 0 failed; 2 ignored"),
            "pgs-guest: end one 0",
            "pgs-guest: begin two",
            &result("7 passed; 1 failed; 0 ignored"),
            "pgs-guest: end two 101",
            "pgs-guest: begin three",
            &result("0 passed; 0 failed; 3 ignored"),
            "pgs-guest: end three 0",
            "pgs-guest: begin four",
        ]);
        assert_eq!(transcript.kernel(), "6.1.0-9-amd64");
        assert_eq!(transcript.ended("canaries").to_string(), "passed");
        assert_eq!(transcript.ended("one").to_string(), "passed: 7 / 0 / 2");
        assert_eq!(transcript.ended("two").to_string(), "failed: 7 / 1 / 0");
        assert_eq!(transcript.ended("three").to_string(), "failed: 0 / 0 / 3");
        assert_eq!(transcript.ended("four"), Ended::Never);
        assert_eq!(transcript.ended("five"), Ended::Never);
        let nothing = Transcript::of_nothing("6.1.0-9-amd64");
        assert_eq!(nothing.kernel(), transcript.kernel());
        assert_eq!(nothing.ended("canaries"), Ended::Never);
        assert!(!transcript.is_done());
    }

    #[test]
    fn a_fault_is_kept_as_it_was_said() {
        let transcript = taken(&["pgs-guest: fault mount -t overlay", "pgs-guest: done"]);
        assert_eq!(transcript.fault(), Some("mount -t overlay"));
        assert!(transcript.is_done());
    }

    #[test]
    fn only_what_a_part_prints_is_shown() {
        let mut transcript = Transcript::default();
        assert!(!transcript.take("SeaBIOS"));
        assert!(!transcript.take("pgs-guest: begin one"));
        assert!(transcript.take("test one ... ok"));
        assert!(!transcript.take(""));
        assert!(!transcript.take("pgs-guest: end one 0"));
        assert!(!transcript.take("reboot: Power down"));
    }
}
