//! A model of diversion and return: the verdict, the kernel's worker and the router as steps that
//! are taken in any order, and the one property that counts: what arrives is what was sent.
//!
//! The router's half calls the real [`Unreceived`]; the verdict's is what `pgs-ebpf` does, in
//! smaller numbers. Each rule can be left out, to see that the model misses it.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestError;
use proptest::test_runner::TestRunner;

use super::place::Unreceived;

/// As in `VERDICT_BOUNDS`, in bytes that are few enough for every bound to be met often.
const ROOM: usize = 3;
const HELD: u64 = 4;

/// A rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The router writes only when nothing that was redirected before still waits.
    Drained,
    /// The verdict redirects only when all that was diverted is written on.
    Forwarded,
    /// What is read counts as forwarded only when all of it is written.
    WholeWrite,
    /// The router reads each run where it went.
    Runs,
    /// A run by the source begins only when the run before the last one is written on.
    ThreeRuns,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A byte arrives; whether its turn is a large one.
    Send { large: bool },
    /// The worker moves one redirected byte to the target.
    Work,
    /// The worker moves one byte to the private socket.
    WorkAside,
    /// The router reads.
    Read { most: usize },
    /// The router writes.
    Write { most: usize },
}

#[derive(Debug, Default)]
struct Flow {
    without: Option<Rule>,
    sent: u32,
    // The verdict's record.
    diverted: u64,
    redirected: u64,
    run: u32,
    run_starts: [u64; 2],
    // The router's orders, and its own account.
    forwarded: u64,
    received: u64,
    drained: u64,
    // Where bytes are.
    at_worker: VecDeque<u32>,
    at_source: VecDeque<u32>,
    before_aside: VecDeque<u32>,
    aside: VecDeque<u32>,
    in_hand: VecDeque<u32>,
    at_target: Vec<u32>,
}

impl Flow {
    fn holds(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Send { large } => self.send(large),
            Step::Work => self.at_target.extend(self.at_worker.pop_front()),
            Step::WorkAside => self.aside.extend(self.before_aside.pop_front()),
            Step::Read { most } => self.read(most),
            Step::Write { most } => self.write(most),
        }
    }

    fn send(&mut self, large: bool) {
        let byte = self.sent;
        self.sent += 1;
        let caught_up = self.forwarded == self.diverted || !self.holds(Rule::Forwarded);
        if caught_up && !large && self.at_worker.len() < ROOM {
            self.at_worker.push_back(byte);
            self.redirected += 1;
            return;
        }
        if self.takes_source() {
            self.at_source.push_back(byte);
        } else {
            self.before_aside.push_back(byte);
        }
        self.diverted += 1;
    }

    fn takes_source(&mut self) -> bool {
        let outstanding = self.diverted.saturating_sub(self.forwarded);
        let by_source = self.run & 1 == 0;
        let changes = if by_source {
            outstanding > HELD
        } else {
            let consumed = self.forwarded >= self.run_starts[1] || !self.holds(Rule::ThreeRuns);
            outstanding <= HELD / 4 + HELD && consumed
        };
        if changes {
            self.run += 1;
            self.run_starts[(self.run & 1) as usize] = self.diverted;
        }
        by_source != changes
    }

    fn read(&mut self, most: usize) {
        if !self.in_hand.is_empty() {
            return;
        }
        let unreceived = Unreceived::of(self.run, self.run_starts, self.diverted, self.received);
        if unreceived == Unreceived::Nothing {
            return;
        }
        if self.drained != self.redirected && self.holds(Rule::Drained) {
            if !self.at_worker.is_empty() {
                return;
            }
            self.drained = self.redirected;
        }
        let (queue, allowance) = match unreceived {
            Unreceived::Nothing => return,
            _ if !self.holds(Rule::Runs) => match self.at_source.is_empty() {
                true => (&mut self.aside, u64::MAX),
                false => (&mut self.at_source, u64::MAX),
            },
            Unreceived::AtSource(bytes) => (&mut self.at_source, bytes),
            Unreceived::Aside(bytes) => (&mut self.aside, bytes),
        };
        let count = most.min(queue.len()).min(allowance as usize);
        self.in_hand.extend(queue.drain(..count));
        self.received += count as u64;
        if !self.holds(Rule::WholeWrite) {
            self.forwarded = self.received;
        }
    }

    fn write(&mut self, most: usize) {
        let count = most.min(self.in_hand.len());
        self.at_target.extend(self.in_hand.drain(..count));
        if self.in_hand.is_empty() {
            self.forwarded = self.received;
        }
    }

    /// Every step is taken until nothing moves any more.
    fn settle(&mut self) {
        let everything = self.sent as usize;
        for _ in 0..2 * everything + 2 {
            for step in [
                Step::Work,
                Step::WorkAside,
                Step::Read { most: everything },
                Step::Write { most: everything },
            ] {
                self.take(step);
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|large| Step::Send { large }),
        2 => Just(Step::Work),
        2 => Just(Step::WorkAside),
        2 => (1_usize..6).prop_map(|most| Step::Read { most }),
        2 => (1_usize..6).prop_map(|most| Step::Write { most }),
    ]
}

/// Whether any order of steps loses, doubles or reorders a byte.
fn search(without: Option<Rule>) -> Result<(), TestError<Vec<Step>>> {
    let config = Config {
        cases: 4_000,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config).run(&vec(step(), 1..80), |steps| {
        let mut flow = Flow {
            without,
            ..Flow::default()
        };
        for step in steps {
            flow.take(step);
        }
        flow.settle();
        let sent: Vec<u32> = (0..flow.sent).collect();
        prop_assert_eq!(flow.at_target, sent);
        Ok(())
    })
}

#[test]
fn what_arrives_is_what_was_sent() {
    search(None).unwrap();
}

#[test]
fn every_rule_is_needed() {
    for rule in [
        Rule::Drained,
        Rule::Forwarded,
        Rule::WholeWrite,
        Rule::Runs,
        Rule::ThreeRuns,
    ] {
        let found = search(Some(rule));
        assert!(
            matches!(found, Err(TestError::Fail(..))),
            "without {rule:?} nothing goes wrong: {found:?}"
        );
    }
}
