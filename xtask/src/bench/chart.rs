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
const FOOT: f64 = 28.0;
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
    title: &'static str,
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
    let height = HEAD + units(rows) * BAR + units(groups.len()) * GAP + FOOT;
    let mut svg = Svg::new(height, times);
    svg.head(&results.machine.line());
    svg.grid();
    let mut top = HEAD;
    for (bars, group) in &groups {
        let middle = top + units(bars.len()) * BAR / 2.0 + 4.0;
        let anchor = Anchor::End;
        svg.text("", anchor, (LABELS - 12.0, middle), group.title);
        for (subject, spread) in bars {
            svg.bar(top, *subject, *spread);
            top += BAR;
        }
        top += GAP;
    }
    Some(svg.end())
}

fn groups() -> Vec<Group> {
    let group = |title, figure, metric| Group {
        title,
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

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// The document as far as it is written.
struct Svg {
    text: String,
    height: f64,
    /// How many times the published port the axis goes to.
    times: f64,
}

impl Svg {
    fn new(height: f64, times: f64) -> Self {
        let namespace = "http://www.w3.org/2000/svg";
        let size = format!(r#"width="{WIDTH}" height="{height:.0}""#);
        let view = format!(r#"viewBox="0 0 {WIDTH} {height:.0}""#);
        let mut svg = Self {
            text: String::new(),
            height,
            times,
        };
        svg.put(&format!(
            r#"<svg xmlns="{namespace}" {view} {size} role="img">"#
        ));
        svg
    }

    fn head(&mut self, machine: &str) {
        let title = "Times better than the container's published port";
        self.put(&format!("<title>{title}</title>\n<style>\n{STYLE}</style>"));
        self.put(r#"<rect class="back" width="100%" height="100%" rx="6"/>"#);
        self.text("title", Anchor::Start, (20.0, 28.0), title);
        let about = format!("{machine}; longer is better; thin lines: all rounds");
        self.text("quiet", Anchor::Start, (20.0, 47.0), &about);
        let mut left = 20.0;
        for subject in SUBJECTS {
            self.rectangle(subject.name(), (left, 60.0), (12.0, 12.0));
            self.text("", Anchor::Start, (left + 17.0, 70.0), subject.title());
            left += 105.0;
        }
    }

    fn grid(&mut self) {
        let mut at = 0.0;
        while at <= self.times {
            let x = self.x(at);
            let class = if at == 1.0 { "one" } else { "grid" };
            self.line(class, (x, HEAD - 8.0), (x, self.height - FOOT + 2.0));
            let point = (x, self.height - 10.0);
            self.text("quiet", Anchor::Middle, point, &format!("{at}×"));
            at += 0.5;
        }
    }

    fn bar(&mut self, top: f64, subject: Subject, spread: Spread) {
        let (thick, end) = (BAR - 2.0, self.x(spread.median));
        self.rectangle(subject.name(), (LABELS, top), (end - LABELS, thick));
        let middle = top + thick / 2.0;
        let (from, to) = (self.x(spread.min), self.x(spread.max));
        self.line("whisker", (from, middle), (to, middle));
        let cut_off = if spread.median > self.times {
            " →"
        } else {
            ""
        };
        let value = format!("{:.2}{cut_off}", spread.median);
        self.text("", Anchor::Start, (to + 6.0, middle + 4.0), &value);
    }

    /// Where so many times the published port is; at most the end of the axis.
    fn x(&self, times: f64) -> f64 {
        LABELS + times.min(self.times) * BARS / self.times
    }

    fn text(&mut self, class: &str, anchor: Anchor, (x, y): (f64, f64), text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        let place = format!(r#"x="{x:.1}" y="{y:.1}" text-anchor="{anchor}""#);
        self.put(&format!(r#"<text class="{class}" {place}>{text}</text>"#));
    }

    fn rectangle(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let size = format!(r#"width="{width:.1}" height="{height:.1}""#);
        self.put(&format!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" {size}/>"#
        ));
    }

    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let from = format!(r#"x1="{x1:.1}" y1="{y1:.1}""#);
        let to = format!(r#"x2="{x2:.1}" y2="{y2:.1}""#);
        self.put(&format!(r#"<line class="{class}" {from} {to}/>"#));
    }

    fn put(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn end(mut self) -> String {
        self.put("</svg>");
        self.text
    }
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
            title: "",
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
        let mut svg = Svg::new(100.0, 4.0);
        svg.bar(0.0, Subject::Pgbouncer, Spread::of(&[9.0]).unwrap());
        let text = svg.end();
        assert!(text.contains(&format!("width=\"{BARS:.1}\"")), "{text}");
        assert!(text.contains("9.00 →"), "{text}");
    }
}
