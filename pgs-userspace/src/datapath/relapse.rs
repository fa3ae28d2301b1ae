//! Whether a backend that has left the verdict comes back with its next turn, or is likely to leave
//! again in it: the way out waits for a timer of the kernel once, and a session in large turns
//! should not pay for that in each of them.

use std::time::Duration;
use std::time::Instant;

use crate::config::limits::RELAPSE_SMALL_TURNS;
use crate::config::limits::RELAPSE_WITHIN;
use crate::config::limits::RETURN_AFTER;
use crate::config::limits::VERDICT_BOUNDS;

/// What a session's backend did the last times.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Habit {
    returned_at: Option<Instant>,
    /// It left again soon after it had come back.
    relapsed: bool,
    /// What had been read of it when its present turn began.
    turn_began_at_bytes: u64,
    small_turns: u32,
}

impl Habit {
    /// It leaves, when so much of it was read.
    pub(super) fn leaves(&mut self, now: Instant, read_bytes: u64) {
        let returned_at = self.returned_at.take();
        self.relapsed = returned_at.is_some_and(|at| now < at + RELAPSE_WITHIN);
        self.turn_began_at_bytes = read_bytes;
        self.small_turns = 0;
    }

    /// Its client sends while it is out: whether it is to come back for that.
    pub(super) fn is_asked(&mut self, read_bytes: u64) -> bool {
        let answered_bytes = read_bytes.saturating_sub(self.turn_began_at_bytes);
        if answered_bytes > 0 {
            self.turn_began_at_bytes = read_bytes;
            let small = answered_bytes <= VERDICT_BOUNDS.turn_bytes.into();
            self.small_turns = if small { self.small_turns + 1 } else { 0 };
        }
        !self.relapsed || self.small_turns >= RELAPSE_SMALL_TURNS
    }

    /// For how long it has to be silent before it comes back without being asked.
    pub(super) fn silence(&self) -> Duration {
        if self.relapsed {
            RELAPSE_WITHIN
        } else {
            RETURN_AFTER
        }
    }

    /// It came back.
    pub(super) fn returns(&mut self, now: Instant) {
        self.returned_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE_BYTES: u64 = 1 << 30;

    /// A backend that has left, come back and left again after `pause`; what was read of it.
    fn left_again(pause: Duration) -> (Habit, u64) {
        let (mut habit, now) = (Habit::default(), Instant::now());
        habit.leaves(now, 10);
        assert!(habit.is_asked(LARGE_BYTES));
        assert_eq!(habit.silence(), RETURN_AFTER);
        habit.returns(now);
        habit.leaves(now + pause, LARGE_BYTES);
        (habit, LARGE_BYTES)
    }

    #[test]
    fn who_leaves_again_soon_stays_out_until_turns_are_small() {
        let (mut habit, mut read) = left_again(RELAPSE_WITHIN / 2);
        assert_eq!(habit.silence(), RELAPSE_WITHIN);
        for _ in 0..3 {
            for _ in 1..RELAPSE_SMALL_TURNS {
                read += 100;
                assert!(!habit.is_asked(read));
            }
            read += LARGE_BYTES;
            assert!(!habit.is_asked(read));
        }
        for _ in 1..RELAPSE_SMALL_TURNS {
            read += 100;
            // The second time it was asked more, and has not answered: no turn.
            assert!(!habit.is_asked(read) && !habit.is_asked(read));
        }
        assert!(habit.is_asked(read + 100));
    }

    #[test]
    fn who_leaves_again_late_comes_back_with_the_next_turn() {
        let (mut habit, read) = left_again(RELAPSE_WITHIN);
        assert_eq!(habit.silence(), RETURN_AFTER);
        assert!(habit.is_asked(read + LARGE_BYTES));
    }
}
