//! Bounds of TLS, ended here or passed through, and of certificates.

use std::time::Duration;

/// Longest ClientHello that is read to find out whom it is for, record headers included, in bytes.
/// One with post-quantum key shares takes two thousand.
pub const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1024;

/// What is read of a ClientHello at once, in bytes.
pub const CLIENT_HELLO_READ_BYTES: usize = 4 * 1024;

/// From a ClientHello with a tenant's name until it is answered, where its TLS is not passed
/// through: longer than it takes to find out, whatever the reason is.
pub const SERVER_NAME_ANSWER_DELAY: Duration = Duration::from_millis(2);

/// Sockets being made in containers' network namespaces at once; each takes a thread for a moment.
pub const NAMESPACE_ENTRIES_IN_FLIGHT_MAX: usize = 16;

/// Tenants' servers whose process is remembered, to make sockets in its network namespace; each
/// holds a descriptor.
pub const SERVER_PROCESSES_KNOWN_MAX: usize = 256;

/// For a tenant's server to answer an SSLRequest, and for a handshake with it.
pub const SERVER_TLS_DEADLINE: Duration = Duration::from_secs(5);

/// How long it is remembered whether any tenant wants its TLS passed through, or certificates.
pub const TLS_WISHES_LIFETIME: Duration = Duration::from_secs(1);

/// Files of authorities for clients' certificates that are kept read.
pub const CLIENT_AUTHORITIES_KNOWN_MAX: usize = 1_024;

/// How long a tenant's server may take to show a certificate that it was just given.
pub const CERTIFICATE_TAKEN_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at it.
pub const CERTIFICATE_TAKEN_POLL_INTERVAL: Duration = Duration::from_millis(100);

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
