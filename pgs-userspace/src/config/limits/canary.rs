//! Bounds of the start-up canaries.

use std::time::Duration;

/// For one step of a start-up canary.
pub const CANARY_DEADLINE: Duration = Duration::from_secs(2);

/// What the canary for order and loss sends in each direction, in bytes.
pub const CANARY_STREAM_BYTES: usize = 4 * 1024 * 1024;

/// How often it is tried before it counts as failed. A router that starts on a busy machine should
/// not relay for all its life.
pub const CANARY_ATTEMPTS_MAX: usize = 10;

/// After so long it is not tried again.
pub const CANARY_ATTEMPTS_DEADLINE: Duration = Duration::from_secs(4);

/// Small turns that it makes afterwards.
pub const CANARY_SMALL_TURNS: usize = 8;

/// Socket buffers of that canary, in bytes: small, so that every refusal to take more is met.
/// With smaller ones it would take seconds, since the kernel tries once a jiffy.
pub const CANARY_SOCKET_BUFFER_BYTES: usize = 64 * 1024;

/// Most that may be taken for an end of a session that reads nothing, in bytes: the buffers of all
/// sockets on the way, and what a busy machine leaves with the kernel's worker for a moment.
pub const CANARY_QUEUED_BYTES_MAX: usize = 7 * 512 * 1024;

const _: () = assert!(CANARY_QUEUED_BYTES_MAX < CANARY_STREAM_BYTES);

/// How long a canary's client does not read: some jiffies, at which the kernel tries again.
pub const CANARY_STALL: Duration = Duration::from_millis(12);

/// Between two looks of a canary at whether something has happened.
pub const CANARY_POLL_INTERVAL: Duration = Duration::from_micros(100);
