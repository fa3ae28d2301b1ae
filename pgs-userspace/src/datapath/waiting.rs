//! When a session on the kernel path is looked at again without an event.

use std::time::Duration;
use std::time::Instant;

use super::direction::Direction;
use super::pump::Wait;
use super::session::Session;
use crate::config::limits::DRAIN_POLL_INTERVAL_MAX;
use crate::config::limits::DRAIN_POLL_INTERVAL_MIN;

/// What became of an attempt to move bytes on the kernel path.
pub(super) enum Moved {
    /// Nothing more can be done before the next event.
    Done,
    /// There is more, but others come first.
    Turn,
    /// Redirected bytes are still on their way, and no event will tell when they are not.
    Undrained,
    /// Nothing more, but it has to be looked at again after this.
    At(Duration),
}

impl From<Wait> for Moved {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Turn => Self::Turn,
            Wait::Readable | Wait::Writable | Wait::Ended => Self::Done,
        }
    }
}

/// Time between two looks whether redirected bytes are drained, of each direction: it gets longer
/// the longer it takes.
#[derive(Debug)]
pub(super) struct DrainIntervals([Duration; 2]);

impl Default for DrainIntervals {
    fn default() -> Self {
        Self([DRAIN_POLL_INTERVAL_MIN; 2])
    }
}

impl DrainIntervals {
    fn of(&mut self, direction: Direction) -> &mut Duration {
        match direction {
            Direction::ToBackend => &mut self.0[0],
            Direction::ToClient => &mut self.0[1],
        }
    }
}

impl Session {
    /// Looks again when this direction, or the other one, has to be looked at, whichever is first.
    pub(super) fn wait_after(&mut self, direction: Direction, moved: &Moved, now: Instant) {
        let interval = self.drain_intervals.of(direction);
        let after = match moved {
            Moved::Done => {
                *interval = DRAIN_POLL_INTERVAL_MIN;
                return;
            }
            Moved::Turn => Duration::ZERO,
            Moved::At(after) => *after,
            Moved::Undrained => {
                let after = *interval;
                *interval = (after * 2).min(DRAIN_POLL_INTERVAL_MAX);
                after
            }
        };
        let at = now + after;
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}
