//! Whoever fails to log in too often has to wait, and longer after each further failure.
//!
//! A login is charged before it is known how it ends, once there were too many failures: else as
//! many guesses could be made at once as there may be connections.

use std::time::Duration;

use super::table::Memory;
use crate::config::sections::Limits;

/// When to wait how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackOff {
    failures_max: u32,
    delay_min: Duration,
    delay_max: Duration,
    forgotten_after: Duration,
}

/// The failures of one client address at one tenant.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Failures {
    count: u32,
    /// Nobody may try before.
    wait_until: Duration,
    forgotten_at: Duration,
}

/// A login that was charged, until it is known how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Charge(Option<Duration>);

impl BackOff {
    /// `None` where the operator wants none.
    pub(super) fn new(limits: &Limits) -> Option<Self> {
        Some(Self {
            failures_max: limits.login_failures_max?,
            delay_min: limits.login_backoff_min,
            delay_max: limits.login_backoff_max,
            forgotten_after: limits.login_failures_forgotten,
        })
    }

    /// Lets a login begin, or says how long it has to wait.
    pub(super) fn begin(self, failures: &mut Failures, now: Duration) -> Result<Charge, Duration> {
        if failures.is_empty(now) {
            *failures = Failures::default();
        }
        if failures.count < self.failures_max {
            return Ok(Charge(None));
        }
        if now < failures.wait_until {
            return Err(failures.wait_until - now);
        }
        failures.wait_until = now + self.delay(failures.count + 1);
        Ok(Charge(Some(failures.wait_until)))
    }

    /// It failed.
    pub(super) fn failed(self, failures: &mut Failures, now: Duration) {
        failures.count = failures.count.saturating_add(1);
        failures.forgotten_at = now + self.forgotten_after;
        if failures.count >= self.failures_max {
            let until = now + self.delay(failures.count);
            failures.wait_until = failures.wait_until.max(until);
        }
    }

    /// It succeeded, or ended before anything was proved: its charge is taken back, and nothing
    /// else. Were failures forgotten by a success, one account would do to guess at another.
    pub(super) fn take_back(failures: &mut Failures, charge: Charge, now: Duration) {
        if charge.0 == Some(failures.wait_until) {
            failures.wait_until = now;
        }
    }

    /// After so many failures.
    fn delay(self, count: u32) -> Duration {
        let doublings = count.saturating_sub(self.failures_max);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.delay_min.saturating_mul(factor).min(self.delay_max)
    }
}

impl Memory for Failures {
    fn is_empty(&self, now: Duration) -> bool {
        self.forgotten_at <= now
    }

    /// More failures first, later ones among equals.
    fn weight(&self) -> u64 {
        u64::from(self.count) << 32 | self.forgotten_at.as_secs() & u64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back_off() -> BackOff {
        let limits = Limits {
            login_failures_max: Some(3),
            login_backoff_min: Duration::from_secs(1),
            login_backoff_max: Duration::from_secs(10),
            login_failures_forgotten: Duration::from_secs(100),
            ..Limits::default()
        };
        BackOff::new(&limits).unwrap()
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_the_longest() {
        let back_off = back_off();
        let mut failures = Failures::default();
        let mut now = seconds(1_000);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(back_off.begin(&mut failures, now).is_ok());
            back_off.failed(&mut failures, now);
            let wait = back_off.begin(&mut failures, now).err().unwrap_or_default();
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn they_are_forgotten_in_time_and_only_by_time() {
        let back_off = back_off();
        let mut failures = Failures::default();
        let mut now = seconds(1_000);
        for _ in 0..3 {
            back_off.failed(&mut failures, now);
        }
        now += seconds(1);
        let charge = back_off.begin(&mut failures, now).unwrap();
        BackOff::take_back(&mut failures, charge, now);
        assert!(back_off.begin(&mut failures, now).is_ok(), "taken back");
        let wait = back_off.begin(&mut failures, now).unwrap_err();
        assert_eq!(wait, seconds(2), "a second one at the same time waits");
        assert!(!failures.is_empty(now + seconds(98)));
        now += seconds(99);
        for _ in 0..10 {
            assert_eq!(back_off.begin(&mut failures, now), Ok(Charge(None)));
        }
    }

    #[test]
    fn logins_at_once_are_bounded_once_there_were_too_many_failures() {
        let back_off = back_off();
        let mut failures = Failures::default();
        let now = seconds(1_000);
        for _ in 0..3 {
            back_off.failed(&mut failures, now);
        }
        let now = now + seconds(60);
        let begun = (0..1_000).filter(|_| back_off.begin(&mut failures, now).is_ok());
        assert_eq!(begun.count(), 1);
    }

    #[test]
    fn so_many_failures_that_the_wait_would_overflow_wait_the_longest() {
        let back_off = back_off();
        let mut failures = Failures {
            count: u32::MAX,
            ..Failures::default()
        };
        back_off.failed(&mut failures, seconds(1));
        assert_eq!(failures.wait_until, seconds(11));
    }
}
