//! Bounds of what is read of PostgreSQL's protocol, and of the PROXY protocol.

/// Longest startup packet, length word included, in bytes: `MAX_STARTUP_PACKET_LENGTH` of
/// PostgreSQL's `src/include/libpq/pqcomm.h`, which does not count the length word.
pub const STARTUP_PACKET_BYTES_MAX: usize = 10_000 + 4;

/// Shortest startup packet in bytes: the length word and the protocol code.
pub const STARTUP_PACKET_BYTES_MIN: usize = 8;

/// Cancel key length in bytes, shortest and longest (PostgreSQL 18, protocol 3.2).
pub const CANCEL_KEY_BYTES_MIN: usize = 4;
/// See [`CANCEL_KEY_BYTES_MIN`].
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

/// How much of an ErrorResponse is looked at while a login passes through, in bytes. SQLSTATE and
/// the primary message come first.
pub const BACKEND_ERROR_CAPTURE_BYTES_MAX: usize = 1024;

/// Longest header of the PROXY protocol, in bytes. Its two addresses take 52 or 232; the rest is
/// for what a proxy adds, such as the client's certificate's name.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * 1024;
