//! Every bound, wait, retry and buffer size of the program, with its unit in its name.

use std::time::Duration;

pub use access::*;
pub use keeper::*;
pub use kernel_path::*;
pub use tls::*;

mod access;
mod keeper;
mod kernel_path;
mod tls;

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

/// Connections that have not said yet what they want, at once, unless told otherwise; further ones
/// wait unaccepted. Fewer where the limit on open files is low.
pub const ARRIVALS_MAX_DEFAULT: usize = 4_096;

/// Fewer arrivals than this would make a few slow ones everybody's problem.
pub const ARRIVALS_MIN: usize = 64;

/// One part in so many of the open files is for arrivals, up to what is configured.
pub const ARRIVALS_SHARE: usize = 4;

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

/// Bytes of a client that are relayed before it is logged in; a SASL exchange takes a few hundred.
pub const LOGIN_CLIENT_BYTES_MAX: usize = 64 * 1024;

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

/// Connections to the admin socket at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Between two looks at whether the last session of a draining router has ended.
pub const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// For one step of a start-up canary.
pub const CANARY_DEADLINE: Duration = Duration::from_secs(2);

/// What the canary for order and loss sends in each direction, in bytes.
pub const CANARY_STREAM_BYTES: usize = 4 * 1024 * 1024;

/// How often it is tried before it counts as failed.
pub const CANARY_ATTEMPTS_MAX: usize = 3;

/// Small turns that it makes afterwards.
pub const CANARY_SMALL_TURNS: usize = 8;

/// Socket buffers of that canary, in bytes: small, so that every refusal to take more is met.
/// With smaller ones it would take seconds, since the kernel tries once a jiffy.
pub const CANARY_SOCKET_BUFFER_BYTES: usize = 64 * 1024;

/// Most that may be taken of the two ends of a session that read nothing, in bytes: the buffers of
/// all its sockets together.
pub const CANARY_QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// For one call of Docker's API. Longer than [`CONTAINER_STOP_GRACE`], which one call waits out.
pub const DOCKER_CALL_DEADLINE: Duration = Duration::from_secs(180);

/// Docker calls under way at once in a command on many tenants.
pub const DOCKER_CALLS_IN_FLIGHT_MAX: usize = 4;

/// From a container's start until its server answers, initialisation of the data included.
pub const SERVER_READY_DEADLINE: Duration = Duration::from_secs(180);

/// Between two looks at whether a server answers.
pub const SERVER_READY_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long a stopping server may take for its last checkpoint before it is killed.
pub const CONTAINER_STOP_GRACE: Duration = Duration::from_secs(120);

/// Memory of a tenant's container in bytes, unless told otherwise.
pub const CONTAINER_MEMORY_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;

/// Least memory of a container in bytes: the default `shared_buffers` alone take 128 MiB.
pub const CONTAINER_MEMORY_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Processors of a tenant's container in thousandths of a core, unless told otherwise; never more
/// than the machine has.
pub const CONTAINER_CPU_MILLIS_DEFAULT: u32 = 2_000;

/// Least processor share of a container, in thousandths of a core (Docker's own bound).
pub const CONTAINER_CPU_MILLIS_MIN: u32 = 10;

/// `/dev/shm` of a container in bytes: parallel queries share their memory there.
pub const CONTAINER_SHM_BYTES: u64 = 256 * 1024 * 1024;

/// Processes of a container: one for each connection, and the server's own.
pub const CONTAINER_PIDS_MAX: u32 = 1_024;

/// Size of one log file of a container, as Docker spells it, and how many it keeps.
pub const CONTAINER_LOG_FILE_SIZE: &str = "10m";
/// See [`CONTAINER_LOG_FILE_SIZE`].
pub const CONTAINER_LOG_FILES: u32 = 3;

/// Between two health checks of a container, and for one of them.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// See [`HEALTH_INTERVAL`].
pub const HEALTH_DEADLINE: Duration = Duration::from_secs(5);
/// Failed health checks in a row that make a container unhealthy.
pub const HEALTH_RETRIES: u32 = 3;

/// Free bytes below which no tenant is made: an empty cluster and its write-ahead log.
pub const FREE_DISK_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// What is kept of one command's output inside a container, in bytes.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Lines of a container's log that an error about it quotes.
pub const LOG_EXCERPT_LINES: usize = 12;

/// Longest password in bytes: PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH` leaves more room, people
/// and password files do not need it.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// Iterations of a SCRAM verifier: `SCRAM_SHA_256_DEFAULT_ITERATIONS` of PostgreSQL's
/// `src/include/common/scram-common.h`.
pub const SCRAM_ITERATIONS: u32 = 4_096;

/// Largest file that `create --init` takes, in bytes.
pub const INIT_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Longest path of a Unix socket in bytes: `sizeof(sun_path)` - 1 (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long a command waits for another command on the same tenant.
pub const OPERATION_LOCK_DEADLINE: Duration = Duration::from_secs(30);
/// Between two tries for it.
pub const OPERATION_LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Between two looks at whether Docker knows a command's exit code, once its output has ended.
pub const EXEC_END_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is looked at.
pub const EXEC_END_POLLS_MAX: u32 = 100;

/// How long a command waits for what Docker is still doing for another that has died.
pub const DOCKER_SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at it.
pub const DOCKER_SETTLE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// For a tenant's server to end its sessions when access is disabled; then the router ends them.
pub const END_BACKENDS_DEADLINE: Duration = Duration::from_secs(5);

/// How long the last message of an ended backend may take to reach its client.
pub const LAST_WORDS_GRACE: Duration = Duration::from_millis(250);

/// epoll waits in whole milliseconds. A wait is rounded up by this, or it would end in a busy loop.
pub const EPOLL_GRANULE: Duration = Duration::from_micros(999);

/// For the kernel's answer about one socket; it comes within the request, or something is wrong.
pub const SOCK_DIAG_DEADLINE: Duration = Duration::from_secs(1);

/// How long a canary's client does not read: some jiffies, at which the kernel tries again.
pub const CANARY_STALL: Duration = Duration::from_millis(12);

/// Between two looks of a canary at whether something has happened.
pub const CANARY_POLL_INTERVAL: Duration = Duration::from_micros(100);

/// How often a spinner turns.
pub const SPINNER_INTERVAL: Duration = Duration::from_millis(100);

/// For a server to say whether it takes clients.
pub const ANSWER_DEADLINE: Duration = Duration::from_millis(500);
// TLS

/// Largest file of a certificate with its chain, or of a private key, in bytes.
pub const CERTIFICATE_FILE_BYTES_MAX: usize = 256 * 1024;

/// Certificates at once, one for each name.
pub const CERTIFICATES_MAX: usize = 10_000;

/// Between two looks at whether a certificate's files have changed.
pub const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a certificate of `pgs tls self-signed` is valid.
pub const SELF_SIGNED_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When `pgs tls show` begins to warn of a certificate's end.
pub const CERTIFICATE_EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Largest TLS record sent, header and content, in bytes. Who uses libpq asynchronously can wait
/// for ever on the socket while the rest of a larger one lies in the TLS library already.
pub const TLS_RECORD_BYTES_MAX: usize = 8 * 1024;

/// What one direction of a session over TLS reads at once, in bytes; also the most that it keeps
/// while its target takes nothing.
pub const SECURE_RELAY_READ_BYTES: usize = 16 * 1024;

/// How long a router that ends waits for its sessions over TLS to close.
pub const SECURE_RELAY_END_DEADLINE: Duration = Duration::from_secs(5);

// The client's address

/// Longest header of the PROXY protocol, in bytes. Its two addresses take 52 or 232; the rest is
/// for what a proxy adds, such as the client's certificate's name.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * 1024;
