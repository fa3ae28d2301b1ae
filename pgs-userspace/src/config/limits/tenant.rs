//! Bounds of a tenant: its id, its password, its place in the registry, its socket.

use std::time::Duration;

/// Longest tenant id in bytes: `NAMEDATALEN` - 1 of PostgreSQL, so that it can be a role name.
pub const TENANT_ID_BYTES_MAX: usize = 63;

/// How long a command waits for another process's transaction on the registry.
pub const REGISTRY_BUSY_DEADLINE: Duration = Duration::from_secs(5);

/// Longest password in bytes: PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH` leaves more room, people
/// and password files do not need it.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// Iterations of a SCRAM verifier: `SCRAM_SHA_256_DEFAULT_ITERATIONS` of PostgreSQL's
/// `src/include/common/scram-common.h`.
pub const SCRAM_ITERATIONS: u32 = 4_096;

/// Longest path of a Unix socket in bytes: `sizeof(sun_path)` - 1 (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
