//! The bars that pgs sets itself, and whether a run met them. Reported, never asserted: a slow run
//! is a result too.

use super::figure::{Figure, Metric, Mode, Place};
use super::plan::CLIENTS_FEW;
use super::results::{Summary, find};
use super::statistics::Spread;
use super::subject::Subject;

/// A ratio that the median is to reach, or not to exceed.
pub(super) struct Bar {
    pub(super) title: String,
    pub(super) metric: Metric,
    pub(super) against: Subject,
    pub(super) limit: f64,
    /// None where it was not measured.
    pub(super) ratio: Option<Spread>,
}

impl Bar {
    /// None where it was not measured.
    pub(super) fn is_met(&self) -> Option<bool> {
        let median = self.ratio?.median;
        Some(if self.metric.more_is_better() {
            median >= self.limit
        } else {
            median <= self.limit
        })
    }
}

/// All bars, for `pgs serve --path auto` with clients in their namespace.
pub(super) fn bars(summary: &[Summary]) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut add = |title: &str, figure, metric, published: f64, haproxy: f64| {
        let found = find(summary, Place::Namespace, figure, metric, Subject::PgsAuto);
        let mut against = |against, limit, ratio| {
            bars.push(Bar {
                title: title.to_owned(),
                metric,
                against,
                limit,
                ratio,
            });
        };
        against(
            Subject::Published,
            published,
            found.and_then(|summary| summary.ratio_to_published),
        );
        against(
            Subject::Haproxy,
            haproxy,
            found.and_then(|summary| summary.ratio_to_haproxy),
        );
    };
    for clients in [4, 16] {
        for mode in Mode::ALL {
            let title = format!("small queries, {}, c = {clients}", mode.name());
            let figure = Figure::Select { mode, clients };
            add(&title, figure, Metric::TransactionsPerSecond, 1.0, 1.4);
        }
    }
    for mode in Mode::ALL {
        let title = format!("p50 latency, {}, c = 1", mode.name());
        let figure = Figure::Select { mode, clients: 1 };
        add(&title, figure, Metric::LatencyP50Microseconds, 1.0, 0.9);
    }
    let rate = Metric::GigabytesPerSecond;
    add("COPY out", Figure::CopyOut, rate, 2.0, 1.4);
    add("COPY in", Figure::CopyIn, rate, 1.5, 1.3);
    let cpu = Metric::CpuSecondsPerGigabyte;
    add("CPU per GB out", Figure::CopyOut, cpu, 0.65, 0.70);
    let clients = CLIENTS_FEW;
    let figure = Figure::Connections { clients };
    let rate = Metric::ConnectionsPerSecond;
    add("connection rate", figure, rate, 1.0, 1.0);
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{summarise, tests::sample};

    fn met(figure: Figure, metric: Metric, published: f64, auto: f64) -> Option<bool> {
        let samples = [
            sample(1, figure, Subject::Published, metric, published),
            sample(1, figure, Subject::PgsAuto, metric, auto),
        ];
        let bars = bars(&summarise(&samples));
        let measured: Vec<_> = bars.iter().filter(|bar| bar.ratio.is_some()).collect();
        assert_eq!(measured.len(), 1);
        assert_eq!(measured[0].against, Subject::Published);
        measured[0].is_met()
    }

    #[test]
    fn more_is_better_for_rates_and_less_for_costs() {
        let rate = Metric::GigabytesPerSecond;
        assert_eq!(met(Figure::CopyOut, rate, 0.4, 0.8), Some(true));
        assert_eq!(met(Figure::CopyOut, rate, 0.4, 0.7), Some(false));
        let cpu = Metric::CpuSecondsPerGigabyte;
        assert_eq!(met(Figure::CopyOut, cpu, 3.0, 1.9), Some(true));
        assert_eq!(met(Figure::CopyOut, cpu, 3.0, 2.1), Some(false));
    }

    #[test]
    fn what_was_not_measured_is_neither() {
        let bars = bars(&[]);
        assert_eq!(bars.len(), 26);
        assert!(bars.iter().all(|bar| bar.is_met().is_none()));
    }
}
