//! Bounds of tenants' containers, and of what is asked of Docker.

use std::time::Duration;

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

/// For one command of pgs's own inside a container. Whoever is superuser of a tenant can hold it up
/// as long as they like; making a database on a slow disk takes some of it too.
pub const EXEC_DEADLINE: Duration = Duration::from_secs(30);

/// What is kept of one command's output inside a container, in bytes.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Lines of a container's log that an error about it quotes.
pub const LOG_EXCERPT_LINES: usize = 12;

/// Between two looks at whether Docker knows a command's exit code, once its output has ended.
pub const EXEC_END_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is looked at.
pub const EXEC_END_POLLS_MAX: u32 = 100;

/// How long a command waits for what Docker is still doing for another that has died.
pub const DOCKER_SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at it.
pub const DOCKER_SETTLE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// For a server to say whether it takes clients.
pub const ANSWER_DEADLINE: Duration = Duration::from_millis(500);
/// Servers that one command asks at once, each by one descriptor.
pub const ANSWERS_AT_ONCE_MAX: usize = 64;
