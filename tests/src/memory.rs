//! What the machine's memory is used for.

use std::fs;

use anyhow::Context as _;

/// What is free, and what the kernel keeps for programs and files, in `/proc/meminfo`.
const NOT_THE_KERNELS: [&str; 8] = [
    "MemFree:",
    "Buffers:",
    "Cached:",
    "SwapCached:",
    "AnonPages:",
    "PageTables:",
    "KernelStack:",
    "SReclaimable:",
];

/// A moment's figures, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryUse {
    /// Of the kernel, for itself: what is in use and belongs to no program, no file and no cache.
    /// Bytes that wait in sockets are here, charged to somebody or not.
    pub kernel: u64,
    /// Of TCP, for buffers: `/proc/net/sockstat`.
    pub tcp: u64,
    /// Resident in one process.
    pub resident: u64,
}

impl MemoryUse {
    /// Now, with the resident memory of `process_id`.
    pub fn now(process_id: u32) -> anyhow::Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let mut kernel = kilobytes(&memory, "MemTotal:")?;
        for other in NOT_THE_KERNELS {
            kernel = kernel.saturating_sub(kilobytes(&memory, other)?);
        }
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
            kernel,
            tcp: pages * u64::try_from(page)?,
            resident,
        })
    }

    /// How much more is used now than `before`.
    pub fn growth_since(self, before: Self) -> Self {
        Self {
            kernel: self.kernel.saturating_sub(before.kernel),
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
