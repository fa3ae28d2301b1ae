//! Who has used how much of the processors.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::clock_getcpuclockid;
use nix::time::clock_gettime;
use nix::unistd::Pid;

/// User and system time of a process and of its threads, in seconds: from its clock, for what
/// `/proc/<pid>/stat` has is in hundredths.
pub fn processor_seconds(process_id: u32) -> anyhow::Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(process_id)?))?;
    Ok(Duration::from(clock_gettime(clock)?).as_secs_f64())
}

fn seconds_in(stat: &str) -> anyhow::Result<f64> {
    // The name in brackets may hold anything, so the fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')').context("no fields")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
    };
    let ticks = ticks(11).zip(ticks(12)).context("no times")?;
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no tick")?;
    Ok((ticks.0 + ticks.1) / second as f64)
}

/// How often the threads of a process have gone to sleep by themselves, as they do between any two
/// events of which they are woken: `voluntary_ctxt_switches` of `/proc/<pid>/task/*/status`.
pub fn voluntary_switches(process_id: u32) -> anyhow::Result<u64> {
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{process_id}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        switches += count.context("no switches")?.trim().parse::<u64>()?;
    }
    Ok(switches)
}

/// What each of the kernel's workers has used at some moment.
#[derive(Debug)]
pub struct KernelWorkers(HashMap<u32, f64>);

impl KernelWorkers {
    /// Now.
    pub fn now() -> anyhow::Result<Self> {
        let mut used = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(process_id) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has just ended is none.
            let Ok(stat) = fs::read_to_string(format!("/proc/{process_id}/stat")) else {
                continue;
            };
            if stat.contains("(kworker/") {
                used.insert(process_id, seconds_in(&stat)?);
            }
        }
        Ok(Self(used))
    }

    /// Seconds that they have used since `before`. Those of one that has ended meanwhile are lost.
    pub fn seconds_since(&self, before: &Self) -> f64 {
        let used = self.0.iter().map(|(process_id, seconds)| {
            let before = before.0.get(process_id).copied().unwrap_or(0.0);
            // A number may be another one's by now.
            (seconds - before).max(0.0)
        });
        used.sum()
    }
}
