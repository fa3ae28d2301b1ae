//! Medians, spreads, percentiles, and ratios within a round.

use serde::Serialize;

/// Several runs of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) runs: usize,
}

impl Spread {
    /// Nothing of nothing.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            min,
            max,
            runs: sorted.len(),
        })
    }

    /// Of `value / base` in each round that has both. Whatever slowed a whole round down (another
    /// tenant of the hardware, heat) is in both and falls out.
    pub(super) fn of_ratios(values: &[(u32, f64)], bases: &[(u32, f64)]) -> Option<Self> {
        let ratios: Vec<f64> = values
            .iter()
            .filter_map(|(round, value)| {
                let (_, base) = bases.iter().find(|(other, _)| other == round)?;
                (*base > 0.0).then_some(value / base)
            })
            .collect();
        Self::of(&ratios)
    }
}

/// The smallest value that at least `percent` of the values do not exceed (nearest rank).
pub(super) fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        let odd = Spread::of(&[9.0, 1.0, 5.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max, odd.runs), (1.0, 5.0, 9.0, 3));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 8.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        // The machine was half as fast in round 2; the ratio is the same.
        let values = [(1, 90.0), (2, 45.0), (3, 80.0), (4, 1.0)];
        let bases = [(2, 50.0), (1, 100.0), (3, 100.0), (5, 7.0)];
        let spread = Spread::of_ratios(&values, &bases).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (0.8, 0.9, 0.9));
        assert_eq!(spread.runs, 3);
        assert_eq!(Spread::of_ratios(&[(1, 1.0)], &[(1, 0.0)]), None);
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 50), Some(50));
        assert_eq!(percentile(&values, 99), Some(99));
        assert_eq!(percentile(&values, 100), Some(100));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[1, 2], 99), Some(2));
        assert_eq!(percentile(&[], 50), None);
    }
}
