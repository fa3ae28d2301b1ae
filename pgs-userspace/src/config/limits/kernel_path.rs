//! Bounds of the kernel path.

use std::time::Duration;

use pgs_common::flow::Bounds;
use pgs_common::flow::NOTICES_BYTES;

/// Bounds of the verdict program.
///
/// `turn_bytes`: small turns belong in the kernel, large ones to the relay, which moves them in
/// larger pieces. `room_bytes`: what redirected bytes may take of a target's send buffer, so that
/// they never wait for a slow reader in front of it. `queue_buffers`: the gate. `held_bytes`: what
/// the router may be behind by before a backend is made to wait. `stuck_buffers`: where a client is
/// cut off that makes the kernel hold what is charged to nobody.
pub const VERDICT_BOUNDS: Bounds = Bounds {
    turn_bytes: 256 * 1024,
    room_bytes: 256 * 1024,
    queue_buffers: 16,
    held_bytes: 512 * 1024,
    held_buffer_bytes_min: 2048,
    stuck_buffers: 1024,
};

/// Send buffer of a client on the kernel path while its backend's bytes pass the verdict, in bytes.
pub const CLIENT_SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// What a client's socket takes beyond what it can send at once, in bytes. More than
/// [`VERDICT_BOUNDS`] has room for, so that what is redirected never meets this bound.
pub const CLIENT_UNSENT_BYTES_MAX: u32 = 512 * 1024;

/// What a client has to have taken of a large turn before its socket is no longer bound, in bytes:
/// it reads. Large results are faster by that, and one that does not read has no more memory.
pub const CLIENT_READS_BYTES: u64 = 8 * 1024 * 1024;

/// Send buffer of a client from which TCP goes on by itself, up to `tcp_wmem`, once it is no longer
/// bound, in bytes.
pub const CLIENT_SEND_BUFFER_START_BYTES: usize = 64 * 1024;

/// Receive buffer of a session's private socket, in bytes. It is there to be full, so that a
/// backend waits whose client does not read.
pub const ASIDE_RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

/// Longest type information of a kernel that is read, in bytes. Usual are 5 to 10 million.
pub const KERNEL_TYPES_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// What a client may have sent before its session is enrolled, in bytes; more is relayed.
pub const ENROL_PENDING_BYTES_MAX: usize = 1024 * 1024;

/// Looks at what a client's socket has accepted before its session stays with the relay: each that
/// fails takes an acknowledgement that arrives within it.
pub const ACCEPTED_LOOKS_MAX: usize = 64;

/// Looks at a flow's counts until its run stays the same during one. The verdict can begin two runs
/// meanwhile, so that the third finds it at rest.
pub const RUN_LOOKS_MAX: usize = 4;

/// Until the counts of a flow that did not come to rest are looked at again.
pub const RUN_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// How long the thread that reads the verdict's notices waits for one before it looks whether it
/// is still wanted.
pub const NOTICES_WAIT: Duration = Duration::from_millis(500);

/// For a worker to leave its sessions to another router.
pub const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// How long a large turn's private socket is left unread, for the backend to be blocked so that it
/// can leave the verdict. A backend that is faster than the router fills it in less.
pub const WITHDRAWAL_DEADLINE: Duration = Duration::from_millis(5);

/// Time between two looks whether it is.
pub const WITHDRAWAL_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Diverted bytes after which it is tried again, where the backend was not blocked in time.
pub const WITHDRAWAL_RETRY_BYTES: u64 = 8 * 1024 * 1024;

/// For so long a backend that has left the verdict has to be silent before it comes back without
/// being asked something.
pub const RETURN_AFTER: Duration = Duration::from_millis(10);

/// A backend that leaves the verdict again so soon after it came back is in large turns, and stays
/// out for longer: until it was silent for as long as this, or ...
pub const RELAPSE_WITHIN: Duration = Duration::from_secs(1);

/// ... until that many turns in a row were small.
pub const RELAPSE_SMALL_TURNS: u32 = 8;

/// Time between two looks for buffers that wait for their successors, after a backend came back to
/// the verdict in the very moment in which it sent.
pub const LAG_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Looks at the backend's queue during enrolment before the attempt is given up as contended.
pub const ENROL_QUEUE_CHECKS_MAX: usize = 16;

/// Waits between two looks at a flow whose redirected bytes are to be drained, shortest and
/// longest.
pub const DRAIN_POLL_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// See [`DRAIN_POLL_INTERVAL_MIN`].
pub const DRAIN_POLL_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// For the kernel's answer about one socket; it comes within the request, or something is wrong.
pub const SOCK_DIAG_DEADLINE: Duration = Duration::from_secs(1);

/// Notices that a full ring holds: each takes 8 bytes of header and 8 of content, and the kernel
/// leaves one byte free. Who reads fewer at once has lost none.
pub const NOTICES_OF_FULL_RING: usize = NOTICES_BYTES as usize / 16 - 1;

/// Answers to earlier questions about sockets, given up by then, that are thrown away before one.
pub const SOCK_DIAG_STALE_ANSWERS_MAX: usize = 64;
