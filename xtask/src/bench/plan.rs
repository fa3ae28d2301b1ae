//! Which measurements a run makes, and in which order.

use super::figure::{Figure, Mode, Place};
use super::subject::Subject;
use anyhow::{Result, bail};
use std::fmt::{self, Display};

const CLIENTS: [u32; 4] = [1, 4, 16, 64];
/// Enough to keep two cores busy, few enough not to measure the scheduler.
pub(super) const CLIENTS_FEW: u32 = 4;
const REGISTERED_TENANTS: [u32; 4] = [1, 10, 100, 1_000];

/// One measurement of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) place: Place,
    pub(super) figure: Figure,
    pub(super) subject: Subject,
}

impl Display for Cell {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, subject) = (self.place.name(), self.subject.name());
        write!(to, "{place}/{}/{subject}", self.figure)
    }
}

/// The figures in their order, each with the subjects that take turns at it.
#[derive(Debug)]
pub(super) struct Plan {
    figures: Vec<(Place, Figure, Vec<Subject>)>,
}

impl Plan {
    /// Everything, or what `quick` leaves of it, of which what `only` names is kept.
    ///
    /// # Errors
    /// Nothing is kept.
    pub(super) fn new(quick: bool, only: &[String]) -> Result<Self> {
        // Whoever names what to measure may name anything.
        let quick = quick && only.is_empty();
        let mut figures = Vec::new();
        for place in [Place::Namespace, Place::Loopback] {
            for figure in figures_of(place).filter(|figure| !quick || is_quick(place, *figure)) {
                let kept: Vec<Subject> = Subject::ALL
                    .into_iter()
                    .filter(|subject| has(place, figure, *subject))
                    .filter(|subject| !quick || QUICK_SUBJECTS.contains(subject))
                    .filter(|&subject| {
                        let cell = Cell {
                            place,
                            figure,
                            subject,
                        };
                        only.is_empty() || only.iter().any(|words| matches(words, cell))
                    })
                    .collect();
                if !kept.is_empty() {
                    figures.push((place, figure, kept));
                }
            }
        }
        if figures.is_empty() {
            bail!(
                "`--only {}` matches no measurement; `cargo xtask bench --list` shows all",
                only.join(" --only ")
            );
        }
        Ok(Self { figures })
    }

    /// The measurements of one round: figure by figure, in each the subjects by turns. Every round
    /// another subject begins, so that none is always measured in the wake of the same other.
    pub(super) fn round(&self, round: u32) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (place, figure, subjects) in &self.figures {
            let first = round as usize % subjects.len();
            let turns = subjects[first..].iter().chain(&subjects[..first]);
            cells.extend(turns.map(|&subject| Cell {
                place: *place,
                figure: *figure,
                subject,
            }));
        }
        cells
    }

    /// The subjects that must run.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        Subject::ALL
            .into_iter()
            .filter(|subject| self.figures.iter().any(|(_, _, all)| all.contains(subject)))
            .collect()
    }

    /// Whether anything of this kind is measured.
    pub(super) fn has(&self, wanted: impl Fn(Figure) -> bool) -> bool {
        self.figures.iter().any(|(_, figure, _)| wanted(*figure))
    }
}

const QUICK_SUBJECTS: [Subject; 3] = [Subject::Published, Subject::Haproxy, Subject::PgsAuto];

fn is_quick(place: Place, figure: Figure) -> bool {
    place == Place::Namespace
        && match figure {
            Figure::Select { mode, clients } => {
                mode == Mode::Prepared && matches!(clients, 1 | CLIENTS_FEW)
            }
            Figure::TpcB { .. } => false,
            Figure::Growth { tenants } => tenants <= 10,
            _ => true,
        }
}

fn figures_of(place: Place) -> impl Iterator<Item = Figure> {
    let select = Mode::ALL
        .into_iter()
        // The protocol makes no difference that loopback would show and the namespace would not.
        .filter(move |mode| place == Place::Namespace || *mode == Mode::Prepared)
        .flat_map(|mode| CLIENTS.map(|clients| Figure::Select { mode, clients }));
    let clients = CLIENTS_FEW;
    let both = [
        Figure::Connections { clients },
        Figure::CopyOut,
        Figure::CopyIn,
    ];
    let elsewhere = [Figure::TpcB { clients }, Figure::IdleSessions]
        .into_iter()
        .chain(REGISTERED_TENANTS.map(|tenants| Figure::Growth { tenants }))
        .filter(move |_| place == Place::Namespace);
    select.chain(both).chain(elsewhere)
}

/// Whether the figure means anything for the subject.
fn has(place: Place, figure: Figure, subject: Subject) -> bool {
    match figure {
        Figure::IdleSessions => subject.is_router(),
        Figure::Growth { .. } => subject == Subject::PgsAuto,
        // A Unix socket is in no network: measured once.
        _ => subject != Subject::UnixSocket || place == Place::Namespace,
    }
}

/// Whether all of the comma-separated words are among the words of the cell's name.
fn matches(words: &str, cell: Cell) -> bool {
    let name = cell.to_string();
    words
        .split(',')
        .all(|word| name.split('/').any(|part| part == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(words: &[&str]) -> Result<Plan> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Plan::new(false, &words)
    }

    fn names(cells: &[Cell]) -> Vec<String> {
        cells.iter().map(Cell::to_string).collect()
    }

    #[test]
    fn subjects_take_turns_and_another_begins_each_round() {
        let plan = only(&[
            "namespace,copy-out,published",
            "namespace,copy-out,pgs-auto",
        ])
        .unwrap();
        assert_eq!(
            names(&plan.round(0)),
            [
                "namespace/copy-out/published",
                "namespace/copy-out/pgs-auto"
            ]
        );
        assert_eq!(
            names(&plan.round(1)),
            [
                "namespace/copy-out/pgs-auto",
                "namespace/copy-out/published"
            ]
        );
    }

    #[test]
    fn a_filter_takes_whole_words() {
        let plan = only(&["select,simple,c1,haproxy"]).unwrap();
        assert_eq!(
            names(&plan.round(0)),
            ["namespace/select/simple/c1/haproxy"]
        );
        assert_eq!(plan.subjects(), [Subject::Haproxy]);
        assert!(only(&["c2"]).is_err());
    }

    #[test]
    fn everything_is_measured_once_a_round() {
        let plan = Plan::new(false, &[]).unwrap();
        let mut all = names(&plan.round(3));
        // 12 selects, TPC-B, connections, two copies of 7 subjects; 5 routers' memory; 4 sizes.
        // On loopback 4 selects, connections, two copies of 6 subjects.
        assert_eq!(all.len(), 16 * 7 + 5 + 4 + 7 * 6);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 163);
        assert_eq!(plan.subjects(), Subject::ALL);
    }

    #[test]
    fn quick_is_little_and_a_filter_takes_from_everything() {
        assert!(Plan::new(true, &[]).unwrap().round(0).len() < 25);
        let words = ["tpc-b,pgbouncer".to_owned()];
        assert_eq!(Plan::new(true, &words).unwrap().round(0).len(), 1);
    }
}
