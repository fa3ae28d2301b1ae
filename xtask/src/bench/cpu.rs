//! Processor time of the whole machine, from `/proc/stat`.

use anyhow::{Context, Result};
use nix::unistd::SysconfVar;

/// Processor time since boot, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticks {
    busy: u64,
    /// What the hypervisor gave to others: a measurement with much of it is none.
    stolen: u64,
}

/// Processor time between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spent {
    pub(super) busy_seconds: f64,
    pub(super) stolen_seconds: f64,
}

impl Ticks {
    pub(super) fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text).context("/proc/stat does not begin with the sum of all processors")
    }

    /// `cpu user nice system idle iowait irq softirq steal guest guest_nice`, proc_stat(5). Guests'
    /// time is in user and nice already.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<u64> = text
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_ascii_whitespace()
            .map(|field| field.parse().ok())
            .collect::<Option<_>>()?;
        let &[user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = fields.as_slice()
        else {
            return None;
        };
        Some(Self {
            busy: user + nice + system + irq + softirq,
            stolen,
        })
    }

    /// What was spent since.
    pub(super) fn elapsed(self) -> Result<Spent> {
        let now = Self::now()?;
        let per_second = nix::unistd::sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        // Exact: both are far below 2^52.
        let seconds = |ticks: u64| ticks as f64 / per_second as f64;
        Ok(Spent {
            busy_seconds: seconds(now.busy.saturating_sub(self.busy)),
            stolen_seconds: seconds(now.stolen.saturating_sub(self.stolen)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_guests_do_not_count() {
        let text = "cpu  100 10 20 99999 8888 3 4 50 60 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let expected = Ticks {
            busy: 137,
            stolen: 50,
        };
        assert_eq!(Ticks::parse(text), Some(expected));
        assert_eq!(Ticks::parse("cpu0 1 2 3 4 5 6 7 8 9 10"), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let spent = Ticks::now().unwrap().elapsed().unwrap();
        assert!(spent.busy_seconds >= 0.0 && spent.busy_seconds < 60.0);
    }
}
