//! Where a session's flows are in the tables, and where its diverted bytes are.

use std::ops::Range;

use pgs_common::flow::SESSIONS_MAX;

use crate::config::limits::RUN_LOOKS_MAX;
use crate::datapath::direction::Direction;

/// A session's two flows, as an index: `2 * place` is to the backend, the next one to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::datapath) struct Place(pub(super) u32);

impl Place {
    /// The flow of this direction.
    pub(super) fn flow(self, direction: Direction) -> u32 {
        match direction {
            Direction::ToBackend => 2 * self.0,
            Direction::ToClient => 2 * self.0 + 1,
        }
    }

    /// Of a session, from any of its flows.
    pub(super) fn of_flow(flow: u32) -> Self {
        Self(flow / 2)
    }

    /// As a number, for the meter.
    pub(in crate::datapath) fn number(self) -> u32 {
        self.0
    }

    /// From [`Self::number`].
    pub(in crate::datapath) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// The places of one part of the workers. The last one has what is left of a division: another
/// router, with another number of workers, may have sessions there.
pub(super) fn places_of(part: u32, parts: u32) -> Range<u32> {
    let share = SESSIONS_MAX / parts;
    let end = if part + 1 == parts {
        SESSIONS_MAX
    } else {
        (part + 1) * share
    };
    part * share..end
}

/// The part of the workers to which a place belongs.
pub(in crate::datapath) fn part_of(place: Place, parts: u32) -> u32 {
    (place.0 / (SESSIONS_MAX / parts)).min(parts - 1)
}

/// Diverted bytes that the router has yet to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::datapath) enum Unreceived {
    /// None.
    Nothing,
    /// So many from the source itself, before anything else.
    AtSource(u64),
    /// So many from the private socket, before anything else.
    Aside(u64),
}

impl Unreceived {
    /// It cannot be told how many, and where: so none may be read, and they are not nothing.
    pub(in crate::datapath) const UNSETTLED: Self = Self::AtSource(0);

    /// What counts say that the verdict may be changing. Without the router's writing it begins at
    /// most two runs, see `takes_source` of the program.
    pub(super) fn at_rest(received: u64, mut look: impl FnMut() -> Look) -> Self {
        for _ in 0..RUN_LOOKS_MAX {
            let look = look();
            if look.is_at_rest() {
                return Self::of(look.run, look.run_starts, look.diverted, received);
            }
        }
        Self::UNSETTLED
    }

    /// See [`pgs_common::flow::Record::run_starts`].
    pub(super) fn of(run: u32, starts: [u64; 2], diverted: u64, received: u64) -> Self {
        let present = starts[(run & 1) as usize];
        let former = starts[(run & 1 ^ 1) as usize];
        let (run, until) = if run == 0 || received >= present {
            (run, diverted)
        } else if received >= former {
            (run - 1, present)
        } else {
            (run.wrapping_sub(2), former)
        };
        match (until - received, run & 1) {
            (0, _) => Self::Nothing,
            (bytes, 0) => Self::AtSource(bytes),
            (bytes, _) => Self::Aside(bytes),
        }
    }
}

/// One look at the counts of a flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) run: u32,
    pub(super) run_starts: [u64; 2],
    pub(super) diverted: u64,
    /// The run's number, looked at again behind all others.
    pub(super) run_behind: u32,
}

impl Look {
    /// Whether no run began meanwhile, nor is just about to: the program writes its start, in the
    /// place of that of the run before the last one, and then its number. Each run has a byte, so
    /// the present one begins behind the last one in any other moment.
    fn is_at_rest(&self) -> bool {
        let [even, odd] = self.run_starts;
        let in_order = match (self.run, self.run & 1) {
            (0, _) => true,
            (_, 0) => even > odd,
            (_, _) => odd > even,
        };
        self.run_behind == self.run && in_order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::WORKERS_MAX;

    #[test]
    fn each_place_is_of_one_part() {
        for parts in 1..=WORKERS_MAX as u32 {
            let all = (0..parts).flat_map(|part| places_of(part, parts).map(move |at| (at, part)));
            let mut expected = 0..SESSIONS_MAX;
            for (place, part) in all {
                assert_eq!(expected.next(), Some(place));
                assert_eq!(part_of(Place(place), parts), part, "{place} of {parts}");
            }
            assert_eq!(expected.next(), None, "{parts}");
        }
    }

    #[test]
    fn counts_that_never_rest_are_taken_for_something_that_may_not_be_read() {
        let mut looks = 0;
        let mut after = |resting: usize| {
            looks = 0;
            Unreceived::at_rest(0, || {
                looks += 1;
                Look {
                    run: 0,
                    run_starts: [0, 0],
                    diverted: 7,
                    run_behind: u32::from(looks < resting),
                }
            })
        };
        assert_eq!(after(RUN_LOOKS_MAX), Unreceived::AtSource(7));
        assert_eq!(after(RUN_LOOKS_MAX + 1), Unreceived::UNSETTLED);
        assert_ne!(Unreceived::UNSETTLED, Unreceived::Nothing);
    }

    #[test]
    fn counts_of_a_run_that_is_just_about_to_begin_are_not_at_rest() {
        let found = |run, run_starts| {
            Unreceived::at_rest(15, || Look {
                run,
                run_starts,
                diverted: 30,
                run_behind: run,
            })
        };
        // The rest of the first run by the private socket comes before what follows by the source.
        assert_eq!(found(2, [20, 10]), Unreceived::Aside(5));
        assert_eq!(found(2, [20, 30]), Unreceived::UNSETTLED);
        assert_eq!(found(1, [30, 10]), Unreceived::UNSETTLED);
        assert_eq!(found(0, [0, 30]), Unreceived::AtSource(15));
    }

    #[test]
    fn each_byte_is_looked_for_where_it_went() {
        use Unreceived::*;
        for (run, starts, diverted, received, expected) in [
            (0, [0, 0], 0, 0, Nothing),
            (0, [0, 0], 7, 3, AtSource(4)),
            // By the private socket from 10 on.
            (1, [0, 10], 15, 0, AtSource(10)),
            (1, [0, 10], 15, 10, Aside(5)),
            // And by the source again from 20 on.
            (2, [20, 10], 26, 4, AtSource(6)),
            (2, [20, 10], 26, 12, Aside(8)),
            (2, [20, 10], 26, 20, AtSource(6)),
            // A third way out, with the first run by the private socket not yet read.
            (3, [20, 30], 31, 12, Aside(8)),
            (3, [20, 30], 31, 20, AtSource(10)),
            (3, [20, 30], 31, 30, Aside(1)),
            (3, [20, 30], 30, 30, Nothing),
        ] {
            let found = Unreceived::of(run, starts, diverted, received);
            assert_eq!(
                found, expected,
                "run {run} {starts:?} {diverted} {received}"
            );
        }
    }
}
