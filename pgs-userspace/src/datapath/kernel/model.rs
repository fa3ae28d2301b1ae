//! A model of diversion and return, and of a backend that leaves the verdict and comes back: the
//! backend, the verdict, the kernel's worker and the router as steps that are taken in any order,
//! and the one property that counts: what arrives is what was sent.
//!
//! The router's half calls the real [`Unreceived`]; the verdict's is what `pgs-ebpf` does, in
//! smaller numbers. Each rule can be left out, to see that the model misses it.

mod search;

use std::collections::VecDeque;

use proptest::test_runner::TestError;

use super::place::Look;
use super::place::Unreceived;
use search::search;

/// As in `VERDICT_BOUNDS`, in bytes that are few enough for every bound to be met often.
const ROOM: usize = 3;
const HELD: u64 = 4;

/// What the private socket holds, and what the backend's send buffer does.
const ASIDE: usize = 2;
const SEND_BUFFER: usize = 2;

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
    /// A backend leaves the verdict only when its send buffer is full.
    Full,
    /// And only when it was seen asleep after that.
    Asleep,
    /// With no verdict between the two looks.
    Unjudged,
    /// What the verdict has diverted is read before what came without it.
    DivertedFirst,
    /// A backend that is back is redirected only when no byte waits for its successor.
    Lag,
    /// While a run is just about to begin, the router reads nothing.
    AtRest,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The backend makes a byte, unless its send buffer is full: it is in the router's queue, and
    /// the verdict is to be woken if it stands in front of that.
    Make,
    /// It wakes what it found there; whether its turn is a large one.
    Wake {
        large: bool,
    },
    /// The verdict goes on where it was interrupted.
    GoOn,
    /// The router looks whether the backend can send.
    LookWhetherFull,
    LookWhetherAsleep,
    /// It takes the backend out of the verdict, when the looks said so.
    Withdraw,
    /// It looks whether the backend is quiet, and puts it back when it was.
    LookWhetherQuiet,
    Return,
    /// It looks whether bytes came too early for that.
    SeeToLag,
    /// The worker moves one redirected byte to the target.
    Work,
    /// The worker moves one byte to the private socket.
    WorkAside,
    /// The router reads.
    Read {
        most: usize,
    },
    /// The router writes.
    Write {
        most: usize,
    },
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Standing {
    #[default]
    Judged,
    Native,
    Returning,
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
    // In the router's queue, which no verdict has seen; and whether the backend is about to wake
    // the verdict, or the router itself.
    queue: VecDeque<u32>,
    wakes_verdict: Option<bool>,
    // That of a verdict which has written a run's start, and not yet its number.
    interrupted: Option<u32>,
    // How the router has the backend stand.
    standing: Standing,
    seen_full: bool,
    seen_judged: u64,
    seen_blocked: bool,
    seen_quiet: bool,
}

impl Flow {
    fn holds(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Make => self.make(),
            Step::GoOn => self.go_on(),
            Step::Wake { large } => self.wake(large),
            Step::Work => self.at_target.extend(self.at_worker.pop_front()),
            Step::WorkAside if self.aside.len() < ASIDE => {
                self.aside.extend(self.before_aside.pop_front());
            }
            Step::LookWhetherFull => {
                self.seen_full = self.is_full();
                self.seen_judged = self.diverted + self.redirected;
            }
            Step::LookWhetherAsleep => {
                let full = self.seen_full || !self.holds(Rule::Full);
                let asleep = self.is_asleep() || !self.holds(Rule::Asleep);
                let aside =
                    self.in_hand.is_empty() && matches!(self.unreceived(), Unreceived::Aside(_));
                let judged = self.diverted + self.redirected;
                let unjudged = self.seen_judged == judged || !self.holds(Rule::Unjudged);
                let blocked = full && asleep && unjudged;
                self.seen_blocked = blocked && aside && self.standing == Standing::Judged;
            }
            Step::Withdraw if self.seen_blocked => {
                self.standing = Standing::Native;
                self.seen_blocked = false;
            }
            Step::WorkAside | Step::Withdraw => {}
            Step::LookWhetherQuiet => self.seen_quiet = self.queue.is_empty(),
            Step::Return => self.come_back(),
            Step::SeeToLag => self.see_to_lag(),
            Step::Read { most } => self.read(most),
            Step::Write { most } => self.write(most),
        }
    }

    fn is_asleep(&self) -> bool {
        self.wakes_verdict.is_none() && self.interrupted.is_none()
    }

    /// What waits for the private socket is charged to the backend, and what it has just made.
    fn is_full(&self) -> bool {
        let made = usize::from(self.wakes_verdict.is_some());
        self.aside.len() >= ASIDE && self.before_aside.len() + made >= SEND_BUFFER
    }

    fn make(&mut self) {
        self.go_on();
        let full = self.before_aside.len().max(self.queue.len()) >= SEND_BUFFER;
        if self.wakes_verdict.is_some() || full {
            return;
        }
        self.queue.push_back(self.sent);
        self.sent += 1;
        self.wakes_verdict = Some(self.standing != Standing::Native);
    }

    fn wake(&mut self, large: bool) {
        self.go_on();
        if self.wakes_verdict.take() != Some(true) {
            // The router reads it; or, where the verdict is there again meanwhile, it waits for
            // its successor.
            return;
        }
        let Some(byte) = self.queue.pop_front() else {
            return;
        };
        if self.standing == Standing::Native {
            // There is no program any more: the kernel drops it.
            return;
        }
        self.judge(byte, large);
    }

    fn judge(&mut self, byte: u32, large: bool) {
        let caught_up = self.forwarded == self.diverted || !self.holds(Rule::Forwarded);
        let open = self.standing == Standing::Judged;
        if open && caught_up && !large && self.at_worker.len() < ROOM {
            self.at_worker.push_back(byte);
            self.redirected += 1;
            return;
        }
        if self.ends_run() {
            self.run_starts[(self.run & 1 ^ 1) as usize] = self.diverted;
            self.interrupted = Some(byte);
        } else {
            self.divert(byte);
        }
    }

    fn go_on(&mut self) {
        if let Some(byte) = self.interrupted.take() {
            self.run += 1;
            self.divert(byte);
        }
    }

    fn divert(&mut self, byte: u32) {
        match self.run & 1 {
            0 => self.at_source.push_back(byte),
            _ => self.before_aside.push_back(byte),
        }
        self.diverted += 1;
    }

    fn unreceived(&self) -> Unreceived {
        if !self.holds(Rule::AtRest) {
            return Unreceived::of(self.run, self.run_starts, self.diverted, self.received);
        }
        Unreceived::at_rest(self.received, || Look {
            run: self.run,
            run_starts: self.run_starts,
            diverted: self.diverted,
            run_behind: self.run,
        })
    }

    fn come_back(&mut self) {
        // Since it was looked at, the backend may have sent.
        let quiet = std::mem::take(&mut self.seen_quiet) && self.in_hand.is_empty();
        if self.standing == Standing::Native && quiet && self.unreceived() == Unreceived::Nothing {
            self.standing = match self.holds(Rule::Lag) {
                true => Standing::Returning,
                false => Standing::Judged,
            };
        }
    }

    fn see_to_lag(&mut self) {
        let still = self.is_asleep() && self.in_hand.is_empty();
        if self.standing != Standing::Returning
            || !still
            || self.unreceived() != Unreceived::Nothing
        {
            return;
        }
        if self.queue.is_empty() {
            self.standing = Standing::Judged;
        } else {
            self.in_hand.extend(self.queue.drain(..));
        }
    }

    fn ends_run(&self) -> bool {
        let outstanding = self.diverted.saturating_sub(self.forwarded);
        if self.run & 1 == 0 {
            return outstanding > HELD;
        }
        let consumed = self.forwarded >= self.run_starts[1] || !self.holds(Rule::ThreeRuns);
        outstanding <= HELD / 4 + HELD && consumed
    }

    fn read(&mut self, most: usize) {
        if !self.in_hand.is_empty() || self.seen_blocked {
            return;
        }
        // The router does not read between its looks.
        self.seen_full = false;
        let unreceived = self.unreceived();
        let diverted_is_read = unreceived == Unreceived::Nothing;
        if self.standing == Standing::Native
            && (diverted_is_read || !self.holds(Rule::DivertedFirst))
        {
            let count = most.min(self.queue.len());
            self.in_hand.extend(self.queue.drain(..count));
            return;
        }
        if diverted_is_read {
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
                Step::Wake { large: false },
                Step::GoOn,
                Step::Work,
                Step::WorkAside,
                Step::Withdraw,
                Step::Read { most: everything },
                Step::Write { most: everything },
                Step::SeeToLag,
            ] {
                self.take(step);
            }
        }
    }
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
        Rule::Full,
        Rule::Asleep,
        Rule::Unjudged,
        Rule::DivertedFirst,
        Rule::Lag,
        Rule::AtRest,
    ] {
        let found = search(Some(rule));
        assert!(
            matches!(found, Err(TestError::Fail(..))),
            "without {rule:?} nothing goes wrong: {found:?}"
        );
    }
}
