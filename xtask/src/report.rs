//! What xtask prints: one line when a step starts something, one when it ends.

use std::fmt::{self, Display};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// One step of a command, named once and reported under that name.
pub(crate) struct Step {
    title: String,
    started: Instant,
}

impl Step {
    /// Names the step. Nothing is printed: a step that finds everything there says one line.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            started: Instant::now(),
        }
    }

    /// Says what the step is about to do, before it takes time.
    pub(crate) fn doing(&self, what: impl Display) {
        line(format_args!("  … {}: {what}", self.title));
    }

    /// Says that the step still runs, over the same line where the output is a terminal.
    pub(crate) fn progress(&self, what: &str) {
        let elapsed = seconds(self.started.elapsed());
        if std::io::stdout().is_terminal() {
            let text: String = what.chars().take(60).collect();
            part(format_args!(
                "\r\x1b[K  … {} [{elapsed}] {text}",
                self.title
            ));
        } else {
            line(format_args!("  … {} [{elapsed}] {what}", self.title));
        }
    }

    /// Removes what `progress` left on a terminal.
    pub(crate) fn progress_end(&self) {
        if std::io::stdout().is_terminal() {
            part(format_args!("\r\x1b[K"));
        }
    }

    /// Ends the step with what it found or made.
    pub(crate) fn done(&self, what: impl Display) {
        let elapsed = self.started.elapsed();
        if elapsed < Duration::from_secs(1) {
            line(format_args!("  ✓ {}: {what}", self.title));
        } else {
            line(format_args!(
                "  ✓ {}: {what} [{}]",
                self.title,
                seconds(elapsed)
            ));
        }
    }

    /// Ends the step without what it wanted, and says why that is no failure.
    pub(crate) fn skipped(&self, why: impl Display) {
        line(format_args!("  – {}: {why}", self.title));
    }
}

/// Opens a group of steps.
pub(crate) fn heading(text: impl Display) {
    line(format_args!("\n▸ {text}"));
}

/// A plain line of the command's own.
pub(crate) fn line(text: impl Display) {
    // A reader that went away (`| head`) is no reason to stop half-way through a set-up.
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// A failure that the output already ends with: nothing is to be printed after it.
#[derive(Debug)]
pub(crate) struct AlreadySaid;

impl Display for AlreadySaid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("see the output above")
    }
}

impl std::error::Error for AlreadySaid {}

/// The error and everything under it, one cause a line.
pub(crate) fn failure(error: &anyhow::Error) {
    if error.is::<AlreadySaid>() {
        return;
    }
    drop(writeln!(std::io::stderr(), "\n✗ {error}"));
    for cause in error.chain().skip(1) {
        drop(writeln!(std::io::stderr(), "  because: {cause}"));
    }
}

fn part(text: impl Display) {
    let mut out = std::io::stdout();
    drop(write!(out, "{text}"));
    drop(out.flush());
}

/// `7 s`, `2 min 05 s`.
pub(crate) fn seconds(elapsed: Duration) -> String {
    let whole = elapsed.as_secs();
    if whole < 60 {
        format!("{}.{} s", whole, elapsed.subsec_millis() / 100)
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_readable() {
        assert_eq!(seconds(Duration::from_millis(7_250)), "7.2 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
    }
}
