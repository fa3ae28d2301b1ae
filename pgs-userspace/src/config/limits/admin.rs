//! Bounds of what commands and a running `pgs serve` say to each other.

use std::time::Duration;

/// Longest request line on the admin socket, in bytes.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Longest response line on the admin socket, in bytes.
pub const ADMIN_RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// For one exchange on the admin socket.
pub const ADMIN_DEADLINE: Duration = Duration::from_secs(10);

/// Connections to the admin socket at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
