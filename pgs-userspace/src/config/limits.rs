//! Every bound, wait, retry and buffer size of the program, with its unit in its name.

use std::time::Duration;

/// Longest startup packet, length word included, in bytes: `MAX_STARTUP_PACKET_LENGTH` of
/// PostgreSQL's `src/include/libpq/pqcomm.h`, which does not count the length word.
pub const STARTUP_PACKET_BYTES_MAX: usize = 10_000 + 4;

/// Shortest startup packet in bytes: the length word and the protocol code.
pub const STARTUP_PACKET_BYTES_MIN: usize = 8;

/// Cancel key length in bytes, shortest and longest (PostgreSQL 18, protocol 3.2).
pub const CANCEL_KEY_BYTES_MIN: usize = 4;
/// See [`CANCEL_KEY_BYTES_MIN`].
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

/// Longest tenant id in bytes: `NAMEDATALEN` - 1 of PostgreSQL, so that it can be a role name.
pub const TENANT_ID_BYTES_MAX: usize = 63;

/// From accept to the end of authentication.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(60);

/// For connecting to a tenant's server over its Unix socket.
pub const BACKEND_CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// For delivering one CancelRequest to a backend.
pub const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// CancelRequests under way at once, in all.
pub const CANCELS_IN_FLIGHT_MAX: usize = 64;

/// Sessions at once, in all, unless told otherwise; also bounded by the open-files limit.
pub const SESSIONS_MAX_DEFAULT: usize = 9_000;

/// Sessions at once of one tenant, unless told otherwise.
pub const SESSIONS_PER_TENANT_MAX_DEFAULT: usize = 1_000;

/// Relay buffer of one direction of one session, in bytes; held only while bytes wait in it.
pub const RELAY_BUFFER_BYTES: usize = 128 * 1024;

/// How long a drain (SIGTERM) waits for sessions to end by themselves, unless told otherwise.
pub const DRAIN_DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

/// Longest request line on the admin socket, in bytes.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Longest response line on the admin socket, in bytes.
pub const ADMIN_RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// For one exchange on the admin socket.
pub const ADMIN_DEADLINE: Duration = Duration::from_secs(10);

/// Reads of one relayed direction before other sessions of the same worker get their turn.
pub const RELAY_READS_PER_EVENT_MAX: usize = 16;

/// Looks at the backend's queue during enrolment before the attempt is given up as contended.
pub const ENROL_QUEUE_CHECKS_MAX: usize = 16;

/// Enrolments of one session that may be contended before it stays with the relay.
pub const ENROL_ATTEMPTS_MAX: u32 = 8;

/// How long a client may take to close after its backend has gone, before it is closed on.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Waits between two looks at a kernel flow that is being drained, shortest and longest.
pub const DRAIN_POLL_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// See [`DRAIN_POLL_INTERVAL_MIN`].
pub const DRAIN_POLL_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// Events that one worker takes from the kernel at once.
pub const WORKER_EVENTS_MAX: usize = 256;

/// Commands that wait for one worker; beyond that the sender is told.
pub const WORKER_COMMANDS_MAX: usize = 16_384;
// Protocol

/// How much of an ErrorResponse is looked at while a login passes through, in bytes. SQLSTATE and
/// the primary message come first.
pub const BACKEND_ERROR_CAPTURE_BYTES_MAX: usize = 1024;
/// How long a command waits for another process's transaction on the registry.
pub const REGISTRY_BUSY_DEADLINE: Duration = Duration::from_secs(5);

/// Idle registry connections that the router keeps for the next startup packets.
pub const ROUTE_READERS_IDLE_MAX: usize = 16;

/// Waits between two tries to connect to a server whose queue is full, shortest and longest.
pub const BACKEND_CONNECT_RETRY_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// See [`BACKEND_CONNECT_RETRY_INTERVAL_MIN`].
pub const BACKEND_CONNECT_RETRY_INTERVAL_MAX: Duration = Duration::from_millis(100);

/// Connections between accept and the end of their login at once; further ones wait unaccepted.
pub const LOGINS_IN_FLIGHT_MAX: usize = 4_096;

/// Bytes of a client that are relayed before it is logged in; a SASL exchange takes a few hundred.
pub const LOGIN_CLIENT_BYTES_MAX: usize = 64 * 1024;

/// Buffer of a login for one direction, in bytes.
pub const LOGIN_BUFFER_BYTES: usize = 4 * 1024;

/// Wait before the next accept after one failed for want of descriptors or memory.
pub const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Connections that wait unaccepted in one listener's queue; the kernel may allow fewer.
pub const LISTEN_BACKLOG_MAX: i32 = 4_096;

/// Descriptors kept free for the registry, the listeners, logins' spares and the admin socket.
pub const DESCRIPTORS_RESERVED: u64 = 512;

/// TCP keepalive of clients: idle time before the first probe, time between two, and their number.
pub const CLIENT_KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// See [`CLIENT_KEEPALIVE_IDLE`].
pub const CLIENT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// See [`CLIENT_KEEPALIVE_IDLE`].
pub const CLIENT_KEEPALIVE_PROBES_MAX: u32 = 6;

/// How long sent data may stay unacknowledged before a client counts as gone.
pub const CLIENT_USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Connections to the admin socket at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Between two looks at whether the last session of a draining router has ended.
pub const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// For one step of a start-up canary.
pub const CANARY_DEADLINE: Duration = Duration::from_secs(2);

/// What the canary for order and loss sends, in bytes.
pub const CANARY_STREAM_BYTES: usize = 1024 * 1024;

/// Socket buffers of that canary, in bytes: small, so that every refusal to take more is met.
/// With smaller ones it would take seconds, since the kernel tries once a jiffy.
pub const CANARY_SOCKET_BUFFER_BYTES: usize = 64 * 1024;

/// Most that may be taken from a backend whose client reads nothing, in bytes: send buffers of an
/// AF_UNIX and of a small TCP socket are a tenth of it.
pub const CANARY_QUEUED_BYTES_MAX: usize = 1024 * 1024;
