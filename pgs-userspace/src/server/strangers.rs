//! Lines of the log that anybody can cause, without a password: so many of a kind within a time.
//!
//! What is more is counted, and one line says how much it was. So whoever floods the port fills no
//! disk, and takes from no other kind its lines. The counters count everything.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::config::limits::STRANGERS_LOG_LINES_MAX;
use crate::config::limits::STRANGERS_LOG_PERIOD;
use crate::tenant::error::RegistryError;

/// A process has one log.
static LINES: Lines = Lines::new();

/// Whether the log has room for one more line of that kind, which then is to be written: it counts.
pub(super) fn log_has_room(kind: &'static str) -> bool {
    LINES.has_room(kind)
}

/// Where the registry fails, it does so for everybody who comes.
pub(super) fn registry_failed(error: &RegistryError) {
    if log_has_room("registry_failed") {
        tracing::error!(%error, "the registry cannot be read");
    }
}

/// Says for ever, after each period, what was left out in it.
pub(super) async fn watch() {
    loop {
        tokio::time::sleep(STRANGERS_LOG_PERIOD).await;
        say_what_was_left_out();
    }
}

/// Says it at once, and begins a new period.
pub(super) fn say_what_was_left_out() {
    for (kind, lines) in LINES.next_period() {
        tracing::warn!(kind, lines, "left out of the log: too many of a kind");
    }
}

/// Those of one period.
#[derive(Debug)]
struct Lines {
    /// Left out ones too. There are as many kinds as the source names.
    asked: Mutex<BTreeMap<&'static str, u64>>,
}

impl Lines {
    const fn new() -> Self {
        Self {
            asked: Mutex::new(BTreeMap::new()),
        }
    }

    fn has_room(&self, kind: &'static str) -> bool {
        let mut asked = self.asked();
        let count = asked.entry(kind).or_default();
        *count += 1;
        *count <= STRANGERS_LOG_LINES_MAX
    }

    /// How many lines of each kind were left out in the one that ends.
    fn next_period(&self) -> Vec<(&'static str, u64)> {
        let asked = std::mem::take(&mut *self.asked());
        asked
            .into_iter()
            .map(|(kind, count)| (kind, count.saturating_sub(STRANGERS_LOG_LINES_MAX)))
            .filter(|(_, left_out)| *left_out > 0)
            .collect()
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: &Lines, kind: &'static str, asked: u64) -> u64 {
        (0..asked).filter(|_| lines.has_room(kind)).count() as u64
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_and_counted_and_leaves_the_others_their_lines() {
        let lines = Lines::new();
        let max = STRANGERS_LOG_LINES_MAX;
        assert_eq!(written(&lines, "flood", max + 7), max);
        assert_eq!(written(&lines, "other", max), max);
        assert_eq!(lines.next_period(), [("flood", 7)]);
    }

    #[test]
    fn each_period_has_room_anew() {
        let lines = Lines::new();
        let max = STRANGERS_LOG_LINES_MAX;
        written(&lines, "flood", 2 * max);
        lines.next_period();
        assert_eq!(written(&lines, "flood", 1), 1);
        assert_eq!(lines.next_period(), [], "it was said already");
    }
}
