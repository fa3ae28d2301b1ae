//! Start-up canaries: small experiments on private sockets that prove on *this* kernel what the
//! kernel path relies on. The kernel's version proves nothing.

use super::kernel::KernelPath;

/// What one canary found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Short name.
    pub name: &'static str,
    /// Whether the kernel behaves as needed.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

/// Runs all canaries.
pub(super) fn run(_kernel: &KernelPath) -> Vec<Finding> {
    Vec::new()
}
