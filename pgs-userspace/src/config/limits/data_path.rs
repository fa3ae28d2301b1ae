//! Bounds of the worker threads and of the relay.

use std::time::Duration;

/// Relay buffer of one direction of one session, in bytes; held only while bytes wait in it.
pub const RELAY_BUFFER_BYTES: usize = 128 * 1024;

/// Reads of one relayed direction before other sessions of the same worker get their turn.
pub const RELAY_READS_PER_EVENT_MAX: usize = 16;

/// How long a client may take to close after its backend has gone, before it is closed on.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Events that one worker takes from the kernel at once.
pub const WORKER_EVENTS_MAX: usize = 256;

/// Workers of one router; it has one for each core up to this. Each has a socket of the 256 in the
/// map `PROBES`, which routers that take over from one another share.
pub const WORKERS_MAX: usize = 64;

/// Commands that wait for one worker; beyond that the sender waits, is told, or has the worker look
/// at all its sessions.
pub const WORKER_COMMANDS_MAX: usize = 16_384;

/// Commands that a worker takes at once, before it looks at events and alarms again.
pub const WORKER_COMMANDS_AT_ONCE_MAX: usize = 256;

/// epoll waits in whole milliseconds. A wait is rounded up by this, or it would end in a busy loop.
pub const EPOLL_GRANULE: Duration = Duration::from_micros(999);
