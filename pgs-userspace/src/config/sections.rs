//! The sections of the configuration, but for the tenants' own, and what holds without a file.

use std::time::Duration;

use crate::config::limits;
use crate::config::listen::ListenOn;
use crate::config::network::Networks;
use crate::config::section::Key;
use crate::config::section::Section;
use crate::config::value::Domains;
use crate::config::value::Grace;
use crate::datapath::PathRequest;
use crate::key;
use crate::word_value;

/// Section `serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Where to listen.
    pub listen: Vec<ListenOn>,
    /// How sessions' bytes travel.
    pub path: PathRequest,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How long SIGTERM waits for sessions to end by themselves.
    pub drain_deadline: Grace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

word_value!(LogFormat, Text = "text", Json = "json");
word_value!(
    PathRequest,
    Auto = "auto",
    Kernel = "kernel",
    Relay = "relay"
);

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: vec![limits::LISTEN_ADDRESS_DEFAULT.into()],
            path: PathRequest::Auto,
            log_format: LogFormat::Text,
            drain_deadline: Grace(limits::DRAIN_DEADLINE_DEFAULT),
        }
    }
}

impl Section for Serve {
    const NAME: &'static str = "serve";

    const KEYS: &'static [Key<Self>] = &[
        key!(restart listen: Vec<ListenOn>, "where to listen, and for which tenant above all: \
                                             clients there that name none come to it"),
        key!(restart path: PathRequest, "how sessions' bytes travel: through the kernel where it \
                                         proves able to, through it or not at all, or by the \
                                         relay"),
        key!(restart log_format: LogFormat, "how log lines look"),
        key!(drain_deadline: Grace, "on SIGTERM, how long sessions may take to end by \
                                        themselves"),
    ];
}

/// Section `limits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at once, in all.
    pub sessions_max: usize,
    /// Connections at once that have not said yet what they want.
    pub arrivals_max: usize,
    /// Of these, and of logins under way, how many one address may have.
    pub address_arrivals_max: Option<u32>,
    /// Of logins under way, how many one address may have to one tenant.
    pub address_logins_max: Option<u32>,
    /// Logins a minute from one address to one tenant that are not seen, in the long run.
    pub address_unseen_login_rate_per_minute: Option<u32>,
    /// Of these, how many at once, before the rate counts.
    pub address_unseen_login_burst: u32,
    /// From accept to the startup packet.
    pub arrival_deadline: Duration,
    /// Connections a minute from one address, in the long run.
    pub address_connection_rate_per_minute: Option<u32>,
    /// Connections at once from one address, before the rate counts.
    pub address_connection_burst: u32,
    /// Cancel requests a minute from one address, in the long run.
    pub address_cancel_rate_per_minute: Option<u32>,
    /// Cancel requests at once from one address, before the rate counts.
    pub address_cancel_burst: u32,
    /// Cancel requests under way at once, in all.
    pub cancels_in_flight_max: usize,
    /// For delivering one.
    pub cancel_deadline: Duration,
    /// Failed logins from one address to one tenant before the next has to wait.
    pub login_failures_max: Option<u32>,
    /// How long the first has to wait; each failure doubles it.
    pub login_backoff_min: Duration,
    /// The longest that one has to wait.
    pub login_backoff_max: Duration,
    /// When failed logins are forgotten.
    pub login_failures_forgotten: Duration,
    /// For connecting to a tenant's server.
    pub backend_connect_deadline: Duration,
    /// Idle time of a client before the first TCP keepalive probe.
    pub client_keepalive_idle: Duration,
    /// Time between two of them.
    pub client_keepalive_interval: Duration,
    /// How many unanswered ones make a client gone.
    pub client_keepalive_probes: u32,
    /// How long sent bytes may stay unacknowledged.
    pub client_user_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: limits::SESSIONS_MAX_DEFAULT,
            arrivals_max: limits::ARRIVALS_MAX_DEFAULT,
            address_arrivals_max: Some(limits::ADDRESS_ARRIVALS_MAX_DEFAULT),
            address_logins_max: Some(limits::ADDRESS_LOGINS_MAX_DEFAULT),
            address_unseen_login_rate_per_minute: Some(
                limits::ADDRESS_UNSEEN_LOGINS_PER_MINUTE_DEFAULT,
            ),
            address_unseen_login_burst: limits::ADDRESS_UNSEEN_LOGINS_BURST_DEFAULT,
            arrival_deadline: limits::ARRIVAL_DEADLINE_DEFAULT,
            address_connection_rate_per_minute: None,
            address_connection_burst: limits::ADDRESS_CONNECTIONS_BURST_DEFAULT,
            address_cancel_rate_per_minute: Some(limits::ADDRESS_CANCELS_PER_MINUTE_DEFAULT),
            address_cancel_burst: limits::ADDRESS_CANCELS_BURST_DEFAULT,
            cancels_in_flight_max: limits::CANCELS_IN_FLIGHT_MAX_DEFAULT,
            cancel_deadline: limits::CANCEL_DEADLINE_DEFAULT,
            login_failures_max: Some(limits::LOGIN_FAILURES_MAX_DEFAULT),
            login_backoff_min: limits::LOGIN_BACKOFF_MIN_DEFAULT,
            login_backoff_max: limits::LOGIN_BACKOFF_MAX_DEFAULT,
            login_failures_forgotten: limits::LOGIN_FAILURES_FORGOTTEN_DEFAULT,
            backend_connect_deadline: limits::BACKEND_CONNECT_DEADLINE_DEFAULT,
            client_keepalive_idle: limits::CLIENT_KEEPALIVE_IDLE_DEFAULT,
            client_keepalive_interval: limits::CLIENT_KEEPALIVE_INTERVAL_DEFAULT,
            client_keepalive_probes: limits::CLIENT_KEEPALIVE_PROBES_DEFAULT,
            client_user_timeout: None,
        }
    }
}

impl Section for Limits {
    const NAME: &'static str = "limits";

    const KEYS: &'static [Key<Self>] = &[
        key!(sessions_max: usize, "sessions at once, in all; fewer where the limit on open files \
                                   is low"),
        key!(restart arrivals_max: usize, "connections at once that have not said yet what they \
                                           want, and at most a quarter of the open files; for \
                                           a further one the oldest of them is closed. As many \
                                           logins may wait for their turn beside them, if a \
                                           sixteenth of the open files is enough for them"),
        key!(address_arrivals_max: Option<u32>, "how many of these, and of logins under way, one \
                                                 client address may have; at most a quarter of \
                                                 all"),
        key!(address_logins_max: Option<u32>, "how many logins to one tenant one client address \
                                               may have under way; further ones wait for \
                                               their turn, 20 seconds or `login_deadline` at \
                                               most. Where TLS passes through, logins \
                                               are not seen: twice as many live sessions that \
                                               began within 35 s, and further ones are refused"),
        key!(address_unseen_login_rate_per_minute: Option<u32>, "sessions a minute from one \
                                                                 client address to one tenant \
                                                                 whose TLS passes through, in \
                                                                 the long run: each may have \
                                                                 tried a password, and cancel \
                                                                 requests are among them"),
        key!(address_unseen_login_burst: u32, "of these, how many at once before \
                                               `address_unseen_login_rate_per_minute` counts"),
        key!(arrival_deadline: Duration, "from the connection to the startup packet, a TLS \
                                          handshake included"),
        key!(address_connection_rate_per_minute: Option<u32>, "connections a minute from one \
                                                               client address, in the long run"),
        key!(address_connection_burst: u32, "connections at once from one client address before \
                                             `address_connection_rate_per_minute` counts"),
        key!(address_cancel_rate_per_minute: Option<u32>, "cancel requests a minute from one \
                                                           client address, in the long run"),
        key!(address_cancel_burst: u32, "cancel requests at once from one client address before \
                                         `address_cancel_rate_per_minute` counts"),
        key!(cancels_in_flight_max: usize, "cancel requests under way at once, in all, and at \
                                            most an eighth of them for one tenant; further \
                                            ones are dropped"),
        key!(cancel_deadline: Duration, "for delivering one cancel request"),
        key!(login_failures_max: Option<u32>, "failed logins from one client address to one \
                                               tenant before the next has to wait"),
        key!(login_backoff_min: Duration, "how long the first has to wait; each further failure \
                                           doubles it"),
        key!(login_backoff_max: Duration, "the longest that one has to wait"),
        key!(login_failures_forgotten: Duration, "after so long without another one, failed \
                                                  logins are forgotten"),
        key!(backend_connect_deadline: Duration, "for connecting to a tenant's server whose queue \
                                                  is full"),
        key!(client_keepalive_idle: Duration, "idle time of a client before the first TCP \
                                               keepalive probe; whole seconds"),
        key!(client_keepalive_interval: Duration, "time between two of them; whole seconds"),
        key!(client_keepalive_probes: u32, "how many unanswered ones make a client gone"),
        key!(client_user_timeout: Option<Duration>, "how long bytes sent to a client may stay \
                                                     unacknowledged (`TCP_USER_TIMEOUT`); also \
                                                     ends clients that merely do not read for so \
                                                     long"),
    ];

    fn check(&self) -> Result<(), String> {
        if self.login_backoff_min > self.login_backoff_max {
            return Err("`login_backoff_min` is longer than `login_backoff_max`".to_owned());
        }
        let keepalive = [
            ("client_keepalive_idle", self.client_keepalive_idle),
            ("client_keepalive_interval", self.client_keepalive_interval),
        ];
        for (name, duration) in keepalive {
            if duration.subsec_nanos() > 0 || duration > limits::KEEPALIVE_TIME_MAX {
                let most = limits::KEEPALIVE_TIME_MAX.as_secs();
                return Err(format!("`{name}` must be whole seconds, at most {most}"));
            }
        }
        if self.client_keepalive_probes > limits::KEEPALIVE_PROBES_MAX {
            return Err(format!(
                "`client_keepalive_probes` must be at most {}",
                limits::KEEPALIVE_PROBES_MAX
            ));
        }
        Ok(())
    }
}

/// Section `tls`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Whether a session in the clear is refused.
    pub required: bool,
    /// Domains whose `<tenant>.<domain>` a server name can be.
    pub domains: Domains,
    /// The oldest version that is spoken.
    pub version_min: TlsVersion,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

word_value!(TlsVersion, Tls12 = "1.2", Tls13 = "1.3");

impl Section for Tls {
    const NAME: &'static str = "tls";

    const KEYS: &'static [Key<Self>] = &[
        key!(required: bool, "refuse sessions that are not encrypted; needs a certificate"),
        key!(domains: Domains, "let `<tenant>.<domain>`, as TLS clients name the host, name the \
                                tenant"),
        key!(version_min: TlsVersion, "the oldest version of TLS that is spoken"),
    ];
}

/// Section `proxy_protocol`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyProtocol {
    /// Whose headers are taken for true.
    pub trusted: Networks,
}

impl Section for ProxyProtocol {
    const NAME: &'static str = "proxy_protocol";

    const KEYS: &'static [Key<Self>] = &[key!(
        trusted: Networks,
        "proxies whose PROXY protocol header says where a client connects from"
    )];
}
