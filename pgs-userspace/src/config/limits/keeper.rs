//! Bounds of what outlives the router.

use std::time::Duration;

/// Slots that a keeper holds, and records of a session table.
pub const KEEPER_SLOTS_MAX: u32 = 65_536;

/// Named descriptors that a keeper holds: listeners, maps, the table. One that is not kept would
/// end every session with its router, so there is room for all that there can be.
pub const KEEPER_GLOBALS_MAX: usize = 80;

/// Longest name of such a descriptor in bytes; systemd takes 255, of which a prefix is ours.
pub const KEEPER_NAME_BYTES_MAX: usize = 64;

/// What systemd can pass the names of all that it stores in, the zero at the end included. They are
/// one variable, `LISTEN_FDNAMES` (`build_environment` of systemd's `src/core/exec-invoke.c`), and
/// Linux starts no program with a longer string: `MAX_ARG_STRLEN` of its
/// `include/uapi/linux/binfmts.h`, 32 pages, which are nowhere smaller than this.
pub const KEEPER_SYSTEMD_VARIABLE_BYTES_MAX: usize = 32 * 4_096;

/// Of that for what a unit has beside the store: sockets of its own, of which pgs needs none.
pub const KEEPER_SYSTEMD_FOREIGN_NAMES_BYTES: usize = 4_096;

/// One in so many of the descriptors that systemd's store takes is left to those with a name of
/// their own, up to [`KEEPER_GLOBALS_MAX`]: after a restart there can be more of them, of more
/// addresses for example, and without them what sessions have stored is of no use.
pub const KEEPER_SYSTEMD_DESCRIPTORS_PER_GLOBAL: usize = 8;

/// Slots in one message, so that their descriptors stay below [`KEEPER_MESSAGE_DESCRIPTORS_MAX`].
pub const KEEPER_PUTS_PER_MESSAGE_MAX: usize = 80;

/// Slots that one message can drop.
pub const KEEPER_DROPS_PER_MESSAGE_MAX: usize = 1_024;

/// Descriptors in one message: `SCM_MAX_FD` of Linux's `include/net/scm.h`.
pub const KEEPER_MESSAGE_DESCRIPTORS_MAX: usize = 253;

/// Longest message between router and keeper in bytes.
pub const KEEPER_MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Connections to a keeper at once: a router, its successor, and commands that ask.
pub const KEEPER_CONNECTIONS_MAX: usize = 8;

/// Descriptors that a keeper keeps for itself, whatever it is given to hold: those connections, and
/// its listener, its epoll and what it was started with.
pub const KEEPER_DESCRIPTORS_RESERVED: usize = KEEPER_CONNECTIONS_MAX + 8;

/// For one answer of a keeper, or for it to take a message.
pub const KEEPER_EXCHANGE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a router that takes over waits for the other to let go. Longer than
/// [`TAKEOVER_LOGINS_DEADLINE`].
pub const KEEPER_TAKEOVER_DEADLINE: Duration = Duration::from_secs(15);

/// Between two tries of a router that takes over to lock the run directory.
pub const SERVE_LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a router that lets go waits for logins under way.
pub const TAKEOVER_LOGINS_DEADLINE: Duration = Duration::from_secs(5);

/// How long new connections wait for a router that was killed to come back, and how long a keeper
/// waits for it when there is no session left, unless told otherwise. So long, at most, the end of
/// one side of a session waits for bytes before it that only a router can move.
pub const KEEPER_RETURN_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// Without a router: from the end of one side of a session to telling the other, so that what is
/// under way inside the kernel arrives first.
pub const KEEPER_HANGUP_GRACE: Duration = Duration::from_millis(500);

/// Without a router: how long a side may acknowledge nothing of what it is still sent, before it is
/// told that the other has ended.
pub const KEEPER_UNSENT_DEADLINE: Duration = Duration::from_secs(60);

/// How long a session's thread waits at most for a keeper whose queue is full. One that takes
/// nothing for so long is replaced.
pub const KEEPER_PUT_DEADLINE: Duration = Duration::from_millis(20);

/// Between two tries to send to a keeper for which the kernel has no room, although its socket
/// shows as writable.
pub const KEEPER_NO_ROOM_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Between two looks at whether a keeper that was told to end has ended.
pub const KEEPER_END_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A keeper's wait before the next accept, after one failed for want of descriptors or memory.
pub const KEEPER_ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Slots that wait, with copies of their descriptors, for a keeper whose queue is full.
pub const KEEPER_BACKLOG_SLOTS_MAX: usize = 64;

/// Waits between two tries to start a keeper, shortest and longest.
pub const KEEPER_RESTART_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// See [`KEEPER_RESTART_INTERVAL_MIN`].
pub const KEEPER_RESTART_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// Events that a keeper takes from the kernel at once.
pub const KEEPER_EVENTS_MAX: usize = 64;

/// One record of a session table in bytes; four share a page of memory.
pub const TABLE_RECORD_BYTES: usize = 1_024;

/// How much of a session's user and database the table keeps, in bytes, for display.
pub const TABLE_NAME_BYTES_MAX: usize = 63;

/// Records of a session table that are read at once.
pub const TABLE_READ_RECORDS: usize = 64;

/// So many times that number without a record, and nobody looks for more behind them.
pub const TABLE_EMPTY_BLOCKS: usize = 4;

/// How often a router looks at what stands in the table of sessions that the one before it goes on
/// with, and how often that one looks whether it is asked to end some.
pub const ELSEWHERE_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Looks after which a router writes down anew how far the sessions are that it goes on with.
pub const ELSEWHERE_LOOKS_PER_ACCOUNT: u32 = 5;

/// So often, then. New sessions of that one are looked for as often, too.
pub const ELSEWHERE_ACCOUNT_INTERVAL: Duration =
    ELSEWHERE_LOOK_INTERVAL.saturating_mul(ELSEWHERE_LOOKS_PER_ACCOUNT);
