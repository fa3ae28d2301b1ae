//! The way out of each refusal.

use super::Refusal;

impl Refusal {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::NoAccess { .. } => {
                "The user or the database names the tenant: check both. The administrator sees \
                 with `pgs status <tenant>` whether it exists and has access, and with \
                 `pgs show <tenant>` from which addresses it `allow`s clients."
            }
            Self::InternalRole { .. } => {
                "Log in as the tenant's own role: the internal one works only from inside the \
                 tenant's container."
            }
            Self::TlsRequired => "Connect with `sslmode=require` or stronger.",
            Self::PassthroughOnly => {
                "Connect with `sslmode=require` or stronger to the host name \
                 `<tenant>.<domain>`, which the administrator knows."
            }
            Self::PassthroughUnavailable => {
                "Try again; the administrator can see why in the router's log, and with \
                 `pgs doctor` whether the router may pass TLS through."
            }
            Self::PassthroughNotListening => {
                "The administrator lets it listen for TLS with `pgs restart <tenant>`."
            }
            Self::ClientCertificateRequired => {
                "Connect with `sslmode=require` or stronger, and with `sslcert` and `sslkey` of a \
                 certificate that the administrator's authority has signed."
            }
            Self::ClientCertificateUser { .. } => {
                "The certificate's common name must be the user's name."
            }
            Self::TenantNotAccepting => {
                "It runs, and has taken no new connection for some seconds. Try again later; the \
                 administrator can see why with `pgs logs <tenant>`."
            }
            Self::TenantNotAnswering => {
                "Try again later; the administrator can see why with `pgs logs <tenant>`."
            }
            Self::TenantStopped => {
                "Try again in a few seconds. If it does not start, the administrator can see why \
                 with `pgs logs <tenant>`, and start it with `pgs start <tenant>`."
            }
            Self::BackendGone => {
                "Try again; the administrator can see why with `pgs logs <tenant>`."
            }
            Self::LoginDeadline => "Send the password without delay.",
            Self::Terminated => {
                "The administrator has ended the session; a new one works if access is still on."
            }
            Self::Draining | Self::RouterEnding => "Try again once it has been started again.",
            Self::RouterFault => "Try again; the administrator can see why in the router's log.",
            other => other.hint_about_limits(),
        }
    }

    /// Of bounds that are reached.
    fn hint_about_limits(&self) -> &'static str {
        match self {
            Self::TooManyConnections | Self::TooManyTenantConnections { .. } => {
                "Close idle connections or try again later; `pgs sessions` shows who holds them."
            }
            Self::TooManyFromAddress => {
                "Close connections or connect less often; the bounds are `address_arrivals_max` \
                 and `address_connection_rate_per_minute` of the router's configuration."
            }
            Self::TooManyLoginsUnderWay => {
                "Try again when some of them have ended, or log in with fewer at once; the bound \
                 is `address_logins_max` of the router's configuration."
            }
            Self::TooManyUnseenLogins => {
                "Keep connections open instead of making new ones; the bound is \
                 `address_unseen_login_rate_per_minute` of the router's configuration."
            }
            Self::TooManyLogins { .. } => {
                "Keep connections open instead of making new ones; the bound is the tenant's \
                 `connection_rate_per_minute`, which `pgs show <tenant>` shows."
            }
            Self::TooManyFailedLogins { .. } => {
                "Check the password and try again later: each further failure doubles the wait."
            }
            other => other.hint_about_bytes(),
        }
    }

    /// Of what is wrong with what arrived, and not with who it comes from.
    fn hint_about_bytes(&self) -> &'static str {
        match self {
            Self::DataAfterSslRequest | Self::DataAfterGssRequest => {
                "A client waits for the answer to its request before it sends more."
            }
            Self::UnsupportedProtocol { .. } => {
                "Use a client that speaks protocol 3 (PostgreSQL 7.4 and later)."
            }
            Self::MissingUser => "Give a user name; it may also name the tenant.",
            Self::NoRoomForAddress => {
                "Shorten `options` or another parameter by 100 bytes; the administrator can leave \
                 the address out with `pgs set <tenant> client_address=off`."
            }
            Self::NoProxyHeader => {
                "Connections from this address are a load balancer's: have it send the header, or \
                 take its address out of `[proxy_protocol] trusted`."
            }
            // What is left is `MalformedStartup`.
            _ => {
                "Check that client and server agree on the protocol, and that nothing in between \
                 changes the bytes."
            }
        }
    }
}
