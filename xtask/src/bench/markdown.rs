//! The results as tables, for people.

use super::bars::{Bar, bars};
use super::figure::{Figure, Metric, Place};
use super::results::{Results, Summary, find};
use super::statistics::Spread;
use super::subject::Subject;

/// All of it: what the machine was, the bars, then every figure.
pub(super) fn render(results: &Results) -> String {
    let mut text = String::new();
    head(&mut text, results);
    bar_table(&mut text, &bars(&results.summary));
    for place in [Place::Namespace, Place::Loopback] {
        figure_table(&mut text, &results.summary, place);
    }
    failures(&mut text, results);
    text
}

fn head(text: &mut String, results: &Results) {
    let settings = &results.settings;
    put(text, "# Benchmark\n");
    put(
        text,
        &format!("{}  \n{}", results.began, results.machine.line()),
    );
    let versions: Vec<&str> = results
        .machine
        .versions
        .iter()
        .filter(|(name, _)| **name != "source")
        .map(|(_, version)| version.as_str())
        .collect();
    let source = results.machine.versions.get("source");
    let source = source.map_or("unknown", String::as_str);
    put(text, &format!("{}; commit {source}\n", versions.join("; ")));
    put(
        text,
        &format!(
            "{} rounds, all subjects by turns in each; {} s a measurement with pgbench, {} GB a \
             COPY.  \nA cell is the median (smallest – largest) over the rounds; a ratio is taken \
             within each round.\n",
            settings.rounds, settings.seconds, settings.copy_gigabytes
        ),
    );
}

fn bar_table(text: &mut String, bars: &[Bar]) {
    put(text, "## What pgs is to reach\n");
    put(
        text,
        "`pgs serve --path auto`, clients in a network namespace of their own.\n",
    );
    put(text, "| figure | against | bar | measured | met |");
    put(text, "|---|---|---|---|---|");
    for bar in bars {
        let sign = if bar.metric.more_is_better() {
            '≥'
        } else {
            '≤'
        };
        let measured = bar.ratio.map_or_else(|| "–".to_owned(), ratio);
        let met = match bar.is_met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not measured",
        };
        put(
            text,
            &format!(
                "| {} | {} | {sign} {:.2} | {measured} | {met} |",
                bar.title,
                bar.against.title(),
                bar.limit
            ),
        );
    }
}

/// For each metric of each figure one row with the values, then one with the ratios.
fn figure_table(text: &mut String, summary: &[Summary], place: Place) {
    let here = || summary.iter().filter(|summary| summary.place == place);
    let subjects: Vec<Subject> = Subject::ALL
        .into_iter()
        .filter(|subject| here().any(|summary| summary.subject == *subject))
        .collect();
    if subjects.is_empty() {
        return;
    }
    let title = match place {
        Place::Namespace => "Clients in a network namespace, behind veth",
        Place::Loopback => "Clients on loopback",
    };
    put(text, &format!("\n## {title}\n"));
    let heads: Vec<&str> = subjects.iter().map(|subject| subject.title()).collect();
    put(text, &format!("| figure | | {} |", heads.join(" | ")));
    put(text, &format!("|---|---|{}", "---|".repeat(subjects.len())));
    let mut rows: Vec<(Figure, Metric)> = here().map(|s| (s.figure, s.metric)).collect();
    rows.dedup();
    for (figure, metric) in rows {
        let cells = |show: &dyn Fn(&Summary) -> String| {
            let cell = |subject: &Subject| {
                find(summary, place, figure, metric, *subject).map_or_else(String::new, show)
            };
            subjects.iter().map(cell).collect::<Vec<_>>().join(" | ")
        };
        let values = cells(&|summary| value(metric, summary.value));
        put(
            text,
            &format!("| {figure} | {} | {values} |", metric.title()),
        );
        for (against, ratio_to) in RATIOS {
            let any = subjects.iter().any(|subject| {
                find(summary, place, figure, metric, *subject)
                    .is_some_and(|s| ratio_to(s).is_some())
            });
            if any {
                let ratios = cells(&|summary| ratio_to(summary).map_or_else(String::new, ratio));
                put(text, &format!("| | ÷ {against} | {ratios} |"));
            }
        }
    }
}

type RatioTo = fn(&Summary) -> Option<Spread>;
const RATIOS: [(&str, RatioTo); 2] = [
    ("published port", |summary| summary.ratio_to_published),
    ("HAProxy", |summary| summary.ratio_to_haproxy),
];

fn failures(text: &mut String, results: &Results) {
    if results.failures.is_empty() {
        return;
    }
    put(text, "\n## Measurements that failed\n");
    for failure in &results.failures {
        let (round, name, error) = (failure.round, &failure.measurement, &failure.error);
        put(text, &format!("- round {round}, `{name}`: {error}"));
    }
}

fn value(metric: Metric, spread: Spread) -> String {
    let show = |value| metric.show(value);
    if spread.runs == 1 {
        return show(spread.median);
    }
    format!(
        "{} ({} – {})",
        show(spread.median),
        show(spread.min),
        show(spread.max)
    )
}

fn ratio(spread: Spread) -> String {
    if spread.runs == 1 {
        return format!("{:.2}", spread.median);
    }
    format!(
        "{:.2} ({:.2} – {:.2})",
        spread.median, spread.min, spread.max
    )
}

fn put(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{summarise, tests::sample};

    #[test]
    fn bars_say_met_or_not_and_by_how_much() {
        let metric = Metric::GigabytesPerSecond;
        let of = |round, subject, value| sample(round, Figure::CopyOut, subject, metric, value);
        let samples = [
            of(1, Subject::Published, 0.4),
            of(1, Subject::PgsAuto, 1.0),
            of(1, Subject::Haproxy, 0.9),
        ];
        let summary = summarise(&samples);
        let mut text = String::new();
        bar_table(&mut text, &bars(&summary));
        assert!(
            text.contains("| COPY out | published port | ≥ 2.00 | 2.50 | yes |"),
            "{text}"
        );
        assert!(
            text.contains("| COPY out | HAProxy | ≥ 1.40 | 1.11 | **no** |"),
            "{text}"
        );
        assert!(text.contains("| connection rate | HAProxy | ≥ 1.00 | – | not measured |"));
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let metric = Metric::GigabytesPerSecond;
        let of = |round, subject, value| sample(round, Figure::CopyOut, subject, metric, value);
        let samples = [
            of(1, Subject::Published, 0.4),
            of(2, Subject::Published, 0.5),
            of(1, Subject::UnixSocket, 2.0),
        ];
        let mut text = String::new();
        figure_table(&mut text, &summarise(&samples), Place::Namespace);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 4, "{text}");
        assert!(
            rows.iter().all(|row| row.matches('|').count() == 5),
            "{text}"
        );
        assert!(rows[2].contains("0.45 (0.40 – 0.50) | 2.00"), "{text}");
        assert!(rows[3].contains("÷ published port |  | 5.00"), "{text}");
    }
}
