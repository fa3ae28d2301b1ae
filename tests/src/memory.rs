//! What the machine's memory is used for.

use std::fs;

use anyhow::Context as _;

/// A moment's figures, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MemoryUse {
    /// Of the whole machine: what is not available to a new program.
    pub machine: u64,
    /// Of TCP, for buffers: `/proc/net/sockstat`.
    pub tcp: u64,
    /// Resident in one process.
    pub resident: u64,
}

impl MemoryUse {
    /// Now, with the resident memory of `process_id`.
    pub fn now(process_id: u32) -> anyhow::Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let total = kilobytes(&memory, "MemTotal:")?;
        let available = kilobytes(&memory, "MemAvailable:")?;
        let status = fs::read_to_string(format!("/proc/{process_id}/status"))?;
        let resident = kilobytes(&status, "VmRSS:")?;
        let sockets = fs::read_to_string("/proc/net/sockstat")?;
        let tcp = sockets.lines().find(|line| line.starts_with("TCP:"));
        let tcp = tcp
            .and_then(|line| line.rsplit_once("mem "))
            .context("no TCP memory")?;
        let pages: u64 = tcp.1.trim().parse()?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.context("no page")?;
        Ok(Self {
            machine: total - available,
            tcp: pages * u64::try_from(page)?,
            resident,
        })
    }

    /// How much more is used now than `before`.
    pub fn growth_since(self, before: Self) -> Self {
        Self {
            machine: self.machine.saturating_sub(before.machine),
            tcp: self.tcp.saturating_sub(before.tcp),
            resident: self.resident.saturating_sub(before.resident),
        }
    }
}

fn kilobytes(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    let value = value.with_context(|| format!("no {name}"))?;
    Ok(value.parse::<u64>()? * 1024)
}
