//! Bounds of single commands.

use std::time::Duration;

/// Largest file that `create --init` takes, in bytes.
pub const INIT_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How long a command waits for another command on the same tenant.
pub const OPERATION_LOCK_DEADLINE: Duration = Duration::from_secs(30);
/// Between two tries for it.
pub const OPERATION_LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// For Docker and a tenant's server to end its sessions when access is disabled; then the router
/// ends them. With [`LAST_WORDS_GRACE`] it is less than the second that `pgs disable` promises.
pub const END_BACKENDS_DEADLINE: Duration = Duration::from_millis(700);

/// How long the last message of an ended backend may take to reach its client.
pub const LAST_WORDS_GRACE: Duration = Duration::from_millis(150);

/// How often a spinner turns.
pub const SPINNER_INTERVAL: Duration = Duration::from_millis(100);
