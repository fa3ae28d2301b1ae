//! What a run has found: every sample, and medians and ratios of them.

use super::figure::{Figure, Metric, Place};
use super::machine::Machine;
use super::measure::Values;
use super::options::Settings;
use super::plan::Cell;
use super::statistics::Spread;
use super::subject::Subject;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// Everything, as it is written to the JSON file.
#[derive(Serialize)]
pub(super) struct Results {
    /// RFC 3339, UTC, when the run began.
    pub(super) began: String,
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) summary: Vec<Summary>,
    pub(super) samples: Vec<Sample>,
    pub(super) failures: Vec<Failure>,
}

/// One measurement of one round.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    round: u32,
    place: Place,
    #[serde(serialize_with = "as_text")]
    figure: Figure,
    subject: Subject,
    metrics: BTreeMap<Metric, f64>,
    seconds: f64,
    /// Of all processors.
    cpu_busy_seconds: f64,
    /// Taken by the hypervisor.
    cpu_stolen_seconds: f64,
}

/// A measurement that came to nothing.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    pub(super) round: u32,
    pub(super) measurement: String,
    pub(super) error: String,
}

/// One metric of one subject over all rounds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    pub(super) place: Place,
    #[serde(serialize_with = "as_text")]
    pub(super) figure: Figure,
    pub(super) metric: Metric,
    pub(super) subject: Subject,
    pub(super) value: Spread,
    /// This subject's value over the other's, round by round.
    pub(super) ratio_to_published: Option<Spread>,
    pub(super) ratio_to_haproxy: Option<Spread>,
}

impl Sample {
    pub(super) fn new(round: u32, cell: Cell, values: Values) -> Self {
        Self {
            round,
            place: cell.place,
            figure: cell.figure,
            subject: cell.subject,
            metrics: values.metrics,
            seconds: values.timing.seconds,
            cpu_busy_seconds: values.timing.spent.busy_seconds,
            cpu_stolen_seconds: values.timing.spent.stolen_seconds,
        }
    }
}

/// Medians, spreads and ratios, in the order in which the figures were first measured.
pub(super) fn summarise(samples: &[Sample]) -> Vec<Summary> {
    let mut keys: Vec<(Place, Figure, Metric, Subject)> = samples
        .iter()
        .flat_map(|sample| {
            let key = |metric| (sample.place, sample.figure, metric, sample.subject);
            sample.metrics.keys().copied().map(key)
        })
        .collect();
    keys.sort();
    keys.dedup();
    let values = |place, figure, metric, subject| -> Vec<(u32, f64)> {
        samples
            .iter()
            .filter(|s| (s.place, s.figure, s.subject) == (place, figure, subject))
            .filter_map(|sample| Some((sample.round, *sample.metrics.get(&metric)?)))
            .collect()
    };
    keys.into_iter()
        .filter_map(|(place, figure, metric, subject)| {
            let own = values(place, figure, metric, subject);
            let ratio_to = |base| {
                let bases = values(place, figure, metric, base);
                Spread::of_ratios(&own, &bases).filter(|_| base != subject)
            };
            let plain: Vec<f64> = own.iter().map(|(_, value)| *value).collect();
            Some(Summary {
                place,
                figure,
                metric,
                subject,
                value: Spread::of(&plain)?,
                ratio_to_published: ratio_to(Subject::Published),
                ratio_to_haproxy: ratio_to(Subject::Haproxy),
            })
        })
        .collect()
}

/// The summary of one metric, if it was measured.
pub(super) fn find(
    summary: &[Summary],
    place: Place,
    figure: Figure,
    metric: Metric,
    subject: Subject,
) -> Option<&Summary> {
    summary
        .iter()
        .find(|s| (s.place, s.figure, s.metric, s.subject) == (place, figure, metric, subject))
}

fn as_text<S: Serializer>(figure: &Figure, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(figure)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::cpu::Spent;
    use crate::bench::measure::Timing;

    /// A sample of one metric.
    pub(in crate::bench) fn sample(
        round: u32,
        figure: Figure,
        subject: Subject,
        metric: Metric,
        value: f64,
    ) -> Sample {
        let cell = Cell {
            place: Place::Namespace,
            figure,
            subject,
        };
        let spent = Spent {
            busy_seconds: 1.0,
            stolen_seconds: 0.0,
        };
        let values = Values {
            metrics: BTreeMap::from([(metric, value)]),
            timing: Timing {
                seconds: 1.0,
                spent,
            },
        };
        Sample::new(round, cell, values)
    }

    #[test]
    fn medians_and_ratios_are_over_the_rounds() {
        let metric = Metric::GigabytesPerSecond;
        let of = |round, subject, value| sample(round, Figure::CopyOut, subject, metric, value);
        let samples = [
            of(1, Subject::Published, 0.4),
            of(1, Subject::PgsAuto, 0.8),
            of(2, Subject::PgsAuto, 0.6),
            of(2, Subject::Published, 0.2),
            of(3, Subject::Published, 0.5),
        ];
        let summary = summarise(&samples);
        assert_eq!(summary.len(), 2);
        let place = Place::Namespace;
        let auto = find(&summary, place, Figure::CopyOut, metric, Subject::PgsAuto).unwrap();
        assert_eq!((auto.value.median, auto.value.runs), (0.7, 2));
        let ratio = auto.ratio_to_published.unwrap();
        assert!((ratio.min - 2.0).abs() < 1e-9 && (ratio.max - 3.0).abs() < 1e-9);
        assert!(auto.ratio_to_haproxy.is_none());
        let published = find(&summary, place, Figure::CopyOut, metric, Subject::Published);
        assert!(published.unwrap().ratio_to_published.is_none());
    }
}
