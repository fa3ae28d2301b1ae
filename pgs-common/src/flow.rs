//! A flow is one direction of one session: bytes from a source socket to a target socket.
//!
//! The router writes `source`, `target` and `request`; the verdict program writes `mode` and the
//! counters. Neither ever writes what belongs to the other, except that the router clears a slot
//! before it inserts the source socket, when no verdict can run on it.

/// Map of all flows: an array that the router maps into its memory, so that reading a counter
/// costs no system call. Key: slot.
pub const FLOWS_MAP: &str = "FLOWS";

/// Hash map from the cookie that the verdict program sees to the slot of the flow.
/// For a TCP source that is the source's own cookie; for an AF_UNIX source it is its peer's,
/// because there `skb->sk` is the sender.
pub const SLOTS_MAP: &str = "SLOTS";

/// Sockhash with the verdict program attached. Key: cookie of the router's own source socket.
pub const SOURCES_MAP: &str = "SOURCES";

/// Sockhash without a program. Key: cookie of the router's own target socket.
pub const TARGETS_MAP: &str = "TARGETS";

/// Name of the verdict program.
pub const VERDICT_PROGRAM: &str = "pgs_verdict";

/// [`Flow::mode`] and [`Flow::request`]: the verdict passes, the router reads and writes on.
pub const RELAY: u32 = 0;

/// [`Flow::mode`] and [`Flow::request`]: the verdict redirects to the target.
pub const KERNEL: u32 = 1;

/// Slots in [`FLOWS_MAP`]; two flows a session. A power of two, so that the program can mask.
pub const FLOW_SLOTS: u32 = 1 << 16;

/// One direction of one session; a cache line, so that two flows never share one.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// Cookie by which the verdict program found this slot; anything else is not redirected.
    pub source: u64,
    /// Key in [`TARGETS_MAP`].
    pub target: u64,
    /// Bytes that the verdict let pass to the router.
    pub passed: u64,
    /// Of those, the bytes that the router has completely written to the target.
    pub forwarded: u64,
    /// Bytes that the verdict redirected to the target inside the kernel.
    pub redirected: u64,
    /// What the verdict does now: [`RELAY`] or [`KERNEL`].
    pub mode: u32,
    /// What the router asks for. To [`KERNEL`] the verdict changes only when `passed` equals
    /// `forwarded`: otherwise a redirected byte would overtake one that the router still holds.
    pub request: u32,
    /// Times that the verdict changed `mode`.
    pub turns: u32,
    /// Keeps the size a cache line.
    pub reserved: [u32; 3],
}

const _: () = assert!(size_of::<Flow>() == 64 && align_of::<Flow>() == 64);

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, every field an integer, and the sizes above leave no padding.
#[expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]
unsafe impl aya::Pod for Flow {}
