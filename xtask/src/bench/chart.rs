//! The main figures as one SVG: how many times better than the published port.
//!
//! Written by hand so that it needs no font, script or library, and follows the reader's light or
//! dark scheme.

use super::figure::{Figure, Metric, Mode, Place};
use super::plan::CLIENTS_FEW;
use super::results::{Results, Summary, find};
use super::statistics::Spread;
use super::subject::Subject;

const SUBJECTS: [Subject; 5] = [
    Subject::Haproxy,
    Subject::Pgbouncer,
    Subject::PgsRelay,
    Subject::PgsKernel,
    Subject::PgsAuto,
];

/// In pixels.
const WIDTH: f64 = 880.0;
const LABELS: f64 = 210.0;
const BARS: f64 = 580.0;
const HEAD: f64 = 96.0;
const BAR: f64 = 13.0;
const GAP: f64 = 16.0;
/// Bars longer than this many times the published port are cut off, and say so.
const TIMES_MAX: f64 = 4.0;

const STYLE: &str = "\
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 16px; font-weight: 600; }
  .quiet { fill: #59636e; }
  .grid { stroke: #d1d9e0; }
  .one { stroke: #1f2328; stroke-dasharray: 4 3; }
  .whisker { stroke: #1f2328; stroke-opacity: 0.6; }
  .haproxy { fill: #aeb6bf; }
  .pgbouncer { fill: #d4c39a; }
  .pgs-relay { fill: #9cc3ea; }
  .pgs-kernel { fill: #4a94dc; }
  .pgs-auto { fill: #1a5fb4; }
  .back { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .one { stroke: #f0f6fc; }
    .whisker { stroke: #f0f6fc; }
    .haproxy { fill: #6e7781; }
    .pgbouncer { fill: #8f7d4d; }
    .pgs-relay { fill: #2b5d8f; }
    .pgs-kernel { fill: #3a84cc; }
    .pgs-auto { fill: #79b8ff; }
    .back { fill: #0d1117; }
  }
";

struct Group {
    title: String,
    figure: Figure,
    metric: Metric,
}

/// The chart, or none where nothing of it was measured.
pub(super) fn render(results: &Results) -> Option<String> {
    let groups: Vec<_> = groups()
        .into_iter()
        .map(|group| (bars_of(&results.summary, &group), group))
        .filter(|(bars, _)| !bars.is_empty())
        .collect();
    if groups.is_empty() {
        return None;
    }
    let times = groups
        .iter()
        .flat_map(|(bars, _)| bars)
        .map(|(_, spread)| spread.max)
        .fold(1.5_f64, f64::max)
        .min(TIMES_MAX);
    let rows: usize = groups.iter().map(|(bars, _)| bars.len()).sum();
    let height = HEAD + units(rows) * BAR + units(groups.len()) * GAP + 28.0;
    let scale = BARS / times;
    let mut svg = String::new();
    begin(&mut svg, height, &results.machine.line());
    grid(&mut svg, height, times, scale);
    let mut top = HEAD;
    for (bars, group) in &groups {
        let middle = top + units(bars.len()) * BAR / 2.0 + 4.0;
        let end = LABELS - 12.0;
        put(
            &mut svg,
            &format!(
                r#"<text x="{end}" y="{middle:.1}" text-anchor="end">{}</text>"#,
                escaped(&group.title)
            ),
        );
        for (subject, spread) in bars {
            bar(&mut svg, top, *subject, *spread, times, scale);
            top += BAR;
        }
        top += GAP;
    }
    put(&mut svg, "</svg>");
    Some(svg)
}

fn groups() -> Vec<Group> {
    let group = |title: &str, figure, metric| Group {
        title: title.to_owned(),
        figure,
        metric,
    };
    let select = |clients| Figure::Select {
        mode: Mode::Prepared,
        clients,
    };
    let clients = CLIENTS_FEW;
    let rate = Metric::TransactionsPerSecond;
    let bulk = Metric::GigabytesPerSecond;
    vec![
        group(
            "latency (p50), 1 client",
            select(1),
            Metric::LatencyP50Microseconds,
        ),
        group("small queries, 4 clients", select(4), rate),
        group("small queries, 16 clients", select(16), rate),
        group("small queries, 64 clients", select(64), rate),
        group("TPC-B, 4 clients", Figure::TpcB { clients }, rate),
        group(
            "connections",
            Figure::Connections { clients },
            Metric::ConnectionsPerSecond,
        ),
        group("COPY out", Figure::CopyOut, bulk),
        group("COPY in", Figure::CopyIn, bulk),
        group(
            "CPU per GB out",
            Figure::CopyOut,
            Metric::CpuSecondsPerGigabyte,
        ),
        group(
            "CPU per GB in",
            Figure::CopyIn,
            Metric::CpuSecondsPerGigabyte,
        ),
    ]
}

/// How many times better than the published port each subject is; of costs the reciprocal.
fn bars_of(summary: &[Summary], group: &Group) -> Vec<(Subject, Spread)> {
    let ratio = |subject| {
        let place = Place::Namespace;
        let found = find(summary, place, group.figure, group.metric, subject)?;
        let ratio = found.ratio_to_published?;
        Some(if group.metric.more_is_better() {
            ratio
        } else {
            reciprocal(ratio)
        })
    };
    SUBJECTS
        .into_iter()
        .filter_map(|subject| Some((subject, ratio(subject)?)))
        .collect()
}

fn reciprocal(spread: Spread) -> Spread {
    Spread {
        median: 1.0 / spread.median,
        min: 1.0 / spread.max,
        max: 1.0 / spread.min,
        runs: spread.runs,
    }
}

fn begin(svg: &mut String, height: f64, machine: &str) {
    put(
        svg,
        &format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" role="img">"#
        ),
    );
    put(
        svg,
        "<title>pgs, HAProxy and PgBouncer against the published port</title>",
    );
    put(svg, &format!("<style>\n{STYLE}</style>"));
    put(
        svg,
        r#"<rect class="back" width="100%" height="100%" rx="6"/>"#,
    );
    put(
        svg,
        r#"<text class="title" x="20" y="28">Times better than the container's published port</text>"#,
    );
    put(
        svg,
        &format!(
            r#"<text class="quiet" x="20" y="47">{}; longer is better; thin lines: all rounds</text>"#,
            escaped(machine)
        ),
    );
    let mut left = 20.0;
    for subject in SUBJECTS {
        let (class, title) = (subject.name(), subject.title());
        put(
            svg,
            &format!(
                r#"<rect class="{class}" x="{left}" y="60" width="12" height="12"/><text x="{}" y="70">{title}</text>"#,
                left + 17.0
            ),
        );
        left += 105.0;
    }
}

fn grid(svg: &mut String, height: f64, times: f64, scale: f64) {
    let bottom = height - 26.0;
    let mut at = 0.0;
    while at <= times {
        let x = LABELS + at * scale;
        let class = if at == 1.0 { "one" } else { "grid" };
        put(
            svg,
            &format!(
                r#"<line class="{class}" x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{bottom:.1}"/>"#,
                HEAD - 8.0
            ),
        );
        put(
            svg,
            &format!(
                r#"<text class="quiet" x="{x:.1}" y="{:.1}" text-anchor="middle">{at}×</text>"#,
                height - 10.0
            ),
        );
        at += 0.5;
    }
}

fn bar(svg: &mut String, top: f64, subject: Subject, spread: Spread, times: f64, scale: f64) {
    let length = |value: f64| value.min(times) * scale;
    let class = subject.name();
    put(
        svg,
        &format!(
            r#"<rect class="{class}" x="{LABELS}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"#,
            length(spread.median),
            BAR - 2.0
        ),
    );
    let middle = top + (BAR - 2.0) / 2.0;
    put(
        svg,
        &format!(
            r#"<line class="whisker" x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}"/>"#,
            LABELS + length(spread.min),
            LABELS + length(spread.max)
        ),
    );
    let cut_off = if spread.median > times { " →" } else { "" };
    put(
        svg,
        &format!(
            r#"<text x="{:.1}" y="{:.1}">{:.2}{cut_off}</text>"#,
            LABELS + length(spread.max) + 6.0,
            middle + 4.0,
            spread.median
        ),
    );
}

/// A count as a coordinate: exact, since there are a few dozen bars.
fn units(count: usize) -> f64 {
    count as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn put(svg: &mut String, line: &str) {
    svg.push_str(line);
    svg.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{summarise, tests::sample};

    #[test]
    fn costs_are_turned_so_that_longer_is_better() {
        let metric = Metric::CpuSecondsPerGigabyte;
        let of = |round, subject, value| sample(round, Figure::CopyOut, subject, metric, value);
        let samples = [
            of(1, Subject::Published, 3.0),
            of(1, Subject::PgsAuto, 1.5),
            of(2, Subject::Published, 4.0),
            of(2, Subject::PgsAuto, 1.0),
        ];
        let group = Group {
            title: String::new(),
            figure: Figure::CopyOut,
            metric,
        };
        let bars = bars_of(&summarise(&samples), &group);
        let [(Subject::PgsAuto, spread)] = bars.as_slice() else {
            panic!("{bars:?}");
        };
        assert_eq!((spread.min, spread.max), (2.0, 4.0));
        assert!(spread.min < spread.median && spread.median < spread.max);
    }

    #[test]
    fn text_cannot_break_out_of_its_element() {
        assert_eq!(escaped("a<b> & c"), "a&lt;b&gt; &amp; c");
    }

    #[test]
    fn a_bar_that_is_too_long_says_so() {
        let mut svg = String::new();
        let spread = Spread::of(&[9.0]).unwrap();
        bar(&mut svg, 0.0, Subject::Pgbouncer, spread, 4.0, 100.0);
        assert!(
            svg.contains("width=\"400.0\"") && svg.contains("9.00 →"),
            "{svg}"
        );
    }
}
