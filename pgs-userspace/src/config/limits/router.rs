//! Bounds of `pgs serve` from the port to the tenant's server, and of its end.

use std::time::Duration;

/// From accept to the end of authentication, unless told otherwise.
pub const LOGIN_DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// For connecting to a tenant's server over its Unix socket, unless told otherwise.
pub const BACKEND_CONNECT_DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// For delivering one CancelRequest to a backend, unless told otherwise.
pub const CANCEL_DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// CancelRequests under way at once, in all, unless told otherwise.
pub const CANCELS_IN_FLIGHT_MAX_DEFAULT: usize = 64;

/// One tenant has at most one of so many parts of these: a server that takes requests and never
/// ends would else keep everybody's back.
pub const CANCELS_IN_FLIGHT_TENANT_PART: usize = 8;

/// Sessions at once, in all, unless told otherwise; also bounded by the open-files limit.
pub const SESSIONS_MAX_DEFAULT: usize = 9_000;

/// Sessions at once of one tenant, unless told otherwise.
pub const TENANT_CONNECTIONS_MAX_DEFAULT: usize = 1_000;

/// How long a drain (SIGTERM) waits for sessions to end by themselves, unless told otherwise.
pub const DRAIN_DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

/// Idle registry connections that the router keeps for the next startup packets.
pub const ROUTE_READERS_IDLE_MAX: usize = 16;

/// Waits between two tries to connect to a server whose queue is full, shortest and longest.
pub const BACKEND_CONNECT_RETRY_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// See [`BACKEND_CONNECT_RETRY_INTERVAL_MIN`].
pub const BACKEND_CONNECT_RETRY_INTERVAL_MAX: Duration = Duration::from_millis(100);

/// Connections that have not said yet what they want, at once, unless told otherwise; one more
/// takes the place of the oldest. Fewer where the limit on open files is low.
pub const ARRIVALS_MAX_DEFAULT: usize = 4_096;

/// Fewer arrivals than this would make a few slow ones everybody's problem.
pub const ARRIVALS_MIN: usize = 64;

/// One part in so many of the open files is for arrivals, up to what is configured.
pub const ARRIVALS_SHARE: usize = 4;

/// One part in so many of the open files is for logins that wait for their turn, of which there may
/// be as many as arrivals.
pub const LOGINS_WAITING_SHARE: usize = 16;

/// Connections of one listener that are accepted and wait for a place among the arrivals, which the
/// oldest of those is about to leave.
pub const ARRIVALS_OUTSIDE_MAX: usize = 16;

/// One client address may have one part in so many of the arrivals, and no more than is
/// configured.
pub const ADDRESS_ARRIVALS_SHARE: usize = 4;

/// But so many in any case.
pub const ADDRESS_ARRIVALS_MIN: usize = 16;

/// From accept to the startup packet, a TLS handshake included, unless told otherwise. Clients send
/// it at once; whoever does not keeps others waiting when there are many of them.
pub const ARRIVAL_DEADLINE_DEFAULT: Duration = Duration::from_secs(15);

/// Longest message of a client that logs in, in bytes: one for the kind, and what the length word
/// counts, itself included, of which PostgreSQL takes no more than its `PG_MAX_AUTH_TOKEN_LENGTH`
/// (`src/include/libpq/auth.h`; `pq_getmessage` of `src/backend/libpq/pqcomm.c`). A SASL exchange
/// takes a few hundred.
pub const LOGIN_CLIENT_BYTES_MAX: usize = 1 + 65_535;

/// Buffer of a login for one direction, in bytes.
pub const LOGIN_BUFFER_BYTES: usize = 4 * 1024;

/// Wait before the next accept after one failed for want of descriptors or memory.
pub const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Connections that wait unaccepted in one listener's queue; the kernel may allow fewer.
pub const LISTEN_BACKLOG_MAX: i32 = 4_096;

/// Descriptors kept free for the registry, the listeners, cancels and the admin socket.
pub const DESCRIPTORS_RESERVED: usize = 512;

/// Descriptors of a session: its client's, its backend's and a private one on the kernel path.
pub const DESCRIPTORS_PER_SESSION: usize = 3;

/// The same where every session is relayed.
pub const DESCRIPTORS_PER_RELAYED_SESSION: usize = 2;

/// TCP keepalive of clients, unless told otherwise: idle time before the first probe, time between
/// two, and their number.
pub const CLIENT_KEEPALIVE_IDLE_DEFAULT: Duration = Duration::from_secs(60);
/// See [`CLIENT_KEEPALIVE_IDLE_DEFAULT`].
pub const CLIENT_KEEPALIVE_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// See [`CLIENT_KEEPALIVE_IDLE_DEFAULT`].
pub const CLIENT_KEEPALIVE_PROBES_DEFAULT: u32 = 6;

/// Between two looks at whether the last session of a draining router has ended.
pub const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);
