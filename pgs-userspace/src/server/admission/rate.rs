//! Rates: so many a minute in the long run, so many at once.

use std::time::Duration;

use super::table::Memory;
use crate::config::limits::RATE_PERIOD;

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// In the long run, between two.
    interval: Duration,
    /// How far ahead of the long run somebody may be.
    ahead: Duration,
}

impl Rate {
    pub(super) fn per_minute(number: u32, burst: u32) -> Self {
        let interval = RATE_PERIOD / number.max(1);
        let ahead = interval.saturating_mul(burst.saturating_sub(1));
        Self { interval, ahead }
    }
}

/// A token bucket, remembered as the time at which it will be full (the "theoretical arrival time"
/// of the generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes a token, or says how long there will be none.
    pub(super) fn take(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        let missing = self.full_at.saturating_sub(now);
        if missing > rate.ahead {
            return Err(missing - rate.ahead);
        }
        self.full_at = self.full_at.max(now) + rate.interval;
        Ok(())
    }

    /// Puts a token back that was taken at this rate.
    pub(super) fn put_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.saturating_sub(rate.interval);
    }
}

impl Memory for Bucket {
    fn is_empty(&self, now: Duration) -> bool {
        self.full_at <= now
    }

    fn weight(&self) -> u64 {
        u64::try_from(self.full_at.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::per_minute(60, 5);
        let mut bucket = Bucket::default();
        let start = Duration::from_secs(100);
        for _ in 0..5 {
            assert_eq!(bucket.take(rate, start), Ok(()));
        }
        assert_eq!(bucket.take(rate, start), Err(Duration::from_secs(1)));
        let later = start + Duration::from_secs(1);
        assert_eq!(bucket.take(rate, later), Ok(()));
        assert_eq!(bucket.take(rate, later), Err(Duration::from_secs(1)));
        assert!(!bucket.is_empty(later + Duration::from_secs(4)));
        assert!(bucket.is_empty(later + Duration::from_secs(5)));
    }

    #[test]
    fn a_token_put_back_can_be_taken_again_and_no_more() {
        let rate = Rate::per_minute(60, 2);
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(100);
        assert_eq!(bucket.take(rate, now), Ok(()));
        assert_eq!(bucket.take(rate, now), Ok(()));
        bucket.put_back(rate);
        assert_eq!(bucket.take(rate, now), Ok(()));
        assert!(bucket.take(rate, now).is_err());
        // One that has filled up meanwhile does not run over.
        let later = now + Duration::from_secs(60);
        bucket.put_back(rate);
        let taken = (0..9).filter(|_| bucket.take(rate, later).is_ok()).count();
        assert_eq!(taken, 2);
    }

    proptest! {
        /// In any window there are at most the burst and what the rate gives for its length.
        #[test]
        fn no_pattern_of_arrivals_gets_more(
            waits in prop::collection::vec(0_u64..3_000, 1..300),
            per_minute in 1_u32..2_000,
            burst in 1_u32..50,
        ) {
            let rate = Rate::per_minute(per_minute, burst);
            let mut bucket = Bucket::default();
            let mut now = Duration::from_secs(7);
            let mut taken = Vec::new();
            for wait in waits {
                now += Duration::from_millis(wait);
                if bucket.take(rate, now).is_ok() {
                    taken.push(now);
                }
            }
            for (first, begin) in taken.iter().enumerate() {
                for (last, end) in taken.iter().enumerate().skip(first) {
                    let window = (*end - *begin).as_secs_f64() / rate.interval.as_secs_f64();
                    let most = window + f64::from(burst) + 1e-3;
                    prop_assert!(((last - first + 1) as f64) <= most);
                }
            }
        }
    }
}
