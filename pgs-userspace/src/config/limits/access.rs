//! Bounds of the configuration, and of who may come in how often.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::time::Duration;

/// Where to listen, unless told otherwise: PostgreSQL's own port.
pub const LISTEN_ADDRESS_DEFAULT: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 5432));

/// Addresses to listen on.
pub const LISTEN_ADDRESSES_MAX: usize = 64;

/// Largest configuration file, in bytes.
pub const CONFIGURATION_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Longest time that can be configured: `TCP_USER_TIMEOUT` takes milliseconds as a C `int`.
pub const CONFIGURED_DURATION_MAX: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// Largest number that can be configured.
pub const CONFIGURED_NUMBERS_MAX: usize = 10_000_000;

/// Networks in one list: it is looked through for every connection.
pub const NETWORKS_IN_LIST_MAX: usize = 256;

/// Longest value of a tenant's setting, in bytes: a full list of IPv6 networks fits.
pub const SETTING_BYTES_MAX: usize = 16 * 1024;

/// Longest time between TCP keepalive probes: `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL` of Linux's
/// `include/net/tcp.h`.
pub const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(32_767);

/// Most TCP keepalive probes: `MAX_TCP_KEEPCNT` of Linux's `include/net/tcp.h`.
pub const KEEPALIVE_PROBES_MAX: u32 = 127;

/// Logins that a tenant's clients may begin at once before its rate counts, unless told otherwise.
pub const TENANT_CONNECTIONS_BURST_DEFAULT: u32 = 100;

/// Arrivals of one client address at once, unless told otherwise: what is left serves the others.
pub const ADDRESS_ARRIVALS_MAX_DEFAULT: u32 = 1_024;

/// Logins under way of one client address to one tenant, unless told otherwise: a third of the
/// connections that a server of PostgreSQL takes by default.
pub const ADDRESS_LOGINS_MAX_DEFAULT: u32 = 32;

/// How long a login waits for one of these places before it is refused, and no longer than until
/// its deadline: clients that open many connections at once get them one after another, 1 000 of
/// them within this on two cores.
pub const LOGIN_PLACE_DEADLINE: Duration = Duration::from_secs(20);

/// Connections that are looked at although their address is beyond its bounds, because they may be
/// for cancel requests; in all.
pub const CANCEL_LOOKS_MAX: usize = 64;

/// The same of one client address.
pub const CANCEL_LOOKS_ADDRESS_MAX: u32 = 8;

/// For such a connection to say what it wants: clients send a cancel request at once.
pub const CANCEL_LOOK_DEADLINE: Duration = Duration::from_secs(1);

/// Of logins that are not seen, because their TLS passes through, so many times as many may be
/// counted: a pool that opens its connections at once is to get them, too.
pub const UNSEEN_LOGINS_FACTOR: u32 = 2;

/// `authentication_timeout` of a server that ends its clients' TLS: as long as a client has by
/// default up to its startup packet where the TLS ends here.
pub const SERVER_AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a server counts it for one client: up to the startup packet, and from there on
/// (`BackendInitialize` in `src/backend/tcop/backend_startup.c`, `PerformAuthentication` in
/// `src/backend/utils/init/postinit.c`).
const SERVER_AUTHENTICATION_TIMEOUTS: u32 = 2;

/// For a loaded server to begin with a client, and to be rid of one.
const UNSEEN_LOGIN_MARGIN: Duration = Duration::from_secs(5);

/// For how long each of those counts, unless its session ends before: whoever is still there then
/// is logged in, or the server would have closed.
pub const UNSEEN_LOGIN_PERIOD: Duration = Duration::from_secs(
    SERVER_AUTHENTICATION_TIMEOUT.as_secs() * SERVER_AUTHENTICATION_TIMEOUTS as u64
        + UNSEEN_LOGIN_MARGIN.as_secs(),
);

/// Logins of one client address to one tenant a minute that are not seen, unless told otherwise:
/// they may all be guesses at a password.
pub const ADDRESS_UNSEEN_LOGINS_PER_MINUTE_DEFAULT: u32 = 200;

/// How many of them at once before their rate counts, unless told otherwise: requests to cancel
/// are among them, and an application that ends cancels everything that it has under way.
pub const ADDRESS_UNSEEN_LOGINS_BURST_DEFAULT: u32 = 200;

/// Connections that one client address may make at once before its rate counts, unless told
/// otherwise.
pub const ADDRESS_CONNECTIONS_BURST_DEFAULT: u32 = 200;

/// Cancel requests of one client address a minute, unless told otherwise.
pub const ADDRESS_CANCELS_PER_MINUTE_DEFAULT: u32 = 600;

/// Cancel requests of one client address at once before its rate counts, unless told otherwise: an
/// application that ends cancels everything that it has under way.
pub const ADDRESS_CANCELS_BURST_DEFAULT: u32 = 200;

/// Failed logins of one client address to one tenant before the next has to wait, unless told
/// otherwise.
pub const LOGIN_FAILURES_MAX_DEFAULT: u32 = 10;

/// How long the first login after too many failures has to wait, unless told otherwise, and the
/// longest that any has to.
pub const LOGIN_BACKOFF_MIN_DEFAULT: Duration = Duration::from_secs(1);
/// See [`LOGIN_BACKOFF_MIN_DEFAULT`].
pub const LOGIN_BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(30);

/// After so long without another one, failed logins are forgotten, unless told otherwise.
pub const LOGIN_FAILURES_FORGOTTEN_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// Client addresses, tenants, or pairs of both that one table of limits remembers; beyond that it
/// forgets those with the least to remember. A power of two, at least 512.
pub const REMEMBERED_ENTRIES_MAX: usize = 16_384;

/// When a client is told that it has no access, counted from its startup packet. Far longer than
/// any look-up takes, so that the time of the answer tells nothing of the look-up.
pub const NO_ACCESS_ANSWER_DELAY: Duration = Duration::from_millis(20);

/// From a startup packet whose user is no tenant until what it names next is asked, in which time
/// the names before are looked up: longer than that takes, the longest `allow` list included.
pub const NEXT_NAME_ANSWER_DELAY: Duration = Duration::from_millis(1);

/// Connections that wait to the moment at once; further ones wait to the millisecond.
pub const PUNCTUAL_WAITS_MAX: usize = 16_384;

/// Between two looks for sessions that have been idle for too long.
pub const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What is read from a client that is turned away before it has said anything, in bytes: enough for
/// a startup packet, so that closing does not reset the connection.
pub const TURNED_AWAY_READ_BYTES: usize = 1024;

/// Refused clients that may take up to [`CLOSE_LINGER`](super::CLOSE_LINGER) to read why, at once;
/// the connections of further ones are closed behind the answer.
pub const FAREWELLS_MAX: usize = 256;

/// Lines of one kind that strangers can cause in the log within [`STRANGERS_LOG_PERIOD`]: at 200
/// bytes a line, one kind takes less than 30 MB a day.
pub const STRANGERS_LOG_LINES_MAX: u64 = 100;
/// See [`STRANGERS_LOG_LINES_MAX`].
pub const STRANGERS_LOG_PERIOD: Duration = Duration::from_secs(60);

/// What rates are counted by: they are given as so many a minute.
pub const RATE_PERIOD: Duration = Duration::from_secs(60);
