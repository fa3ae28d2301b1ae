//! Every refusal that pgs itself makes: its SQLSTATE, its message and the way out.
//!
//! Where PostgreSQL has words for the case, they are used, since drivers and people know them.

mod hint;

use bytes::Bytes;

use super::error_response::ErrorResponse;
use super::error_response::Severity;
use super::sqlstate::SqlState;
use super::version::ProtocolVersion;

/// The enum, one of each, and its cause, from the same lines: a kind that is left out is none.
/// Behind a field stands what it holds in that one; what is said of a kind is its cause.
macro_rules! refusals {
    (
        $(#[$about:meta])*
        pub enum Refusal {
            $(
                $(#[doc = $cause:literal])+
                $kind:ident $({
                    $($(#[$field_about:meta])* $field:ident: $type:ty = $one:expr,)+
                })?,
            )+
        }
    ) => {
        $(#[$about])*
        pub enum Refusal {
            $($(#[doc = $cause])+ $kind $({ $($(#[$field_about])* $field: $type,)+ })?,)+
        }

        impl Refusal {
            /// One of each, with the names of what they name in angle brackets.
            pub fn all() -> impl Iterator<Item = Self> {
                [$(Self::$kind $({ $($field: $one,)+ })?,)+].into_iter()
            }

            /// What leads to it.
            pub fn cause(&self) -> String {
                // Each line of a comment begins with a blank.
                let lines: &[&str] = match self { $(Self::$kind { .. } => &[$($cause),+],)+ };
                lines.concat().trim().to_owned()
            }
        }
    };
}

refusals! {
    /// Why pgs refuses a connection, or ends one.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Refusal {
        /// No tenant of that name, one whose access is off, or one that takes no client of that
        /// address: the client is told the same of all, so that nobody can find out what tenants
        /// there are.
        NoAccess {
            /// User of the startup message.
            user: String = "<user>".into(),
            /// Database of the startup message.
            database: String = "<database>".into(),
            /// Where the client connects from.
            address: String = "<address>".into(),
        },
        /// A role that may log in only from inside its tenant's container. Refused before the
        /// tenant is looked up, or the answer would tell whether there is one.
        InternalRole {
            /// User of the startup message.
            user: String = "<user>".into(),
        },
        /// The tenant, or the router for all of them, takes encrypted connections only.
        TlsRequired,
        /// The tenant's own server ends its clients' TLS, and this client's does not lead there.
        PassthroughOnly,
        /// The tenant's own server ends its clients' TLS, and it is not to be had.
        PassthroughUnavailable,
        /// The tenant's own server is to end its clients' TLS, and has been started without.
        PassthroughNotListening,
        /// The tenant's clients must show a certificate that it takes.
        ClientCertificateRequired,
        /// The client's certificate is for another user.
        ClientCertificateUser {
            /// User of the startup message.
            user: String = "<user>".into(),
        },
        /// The tenant's server runs, and its queue of new connections stayed full.
        TenantNotAccepting,
        /// The tenant's server left the login unanswered until the client's deadline.
        TenantNotAnswering,
        /// The tenant's server has no socket: it does not run, or not yet.
        TenantStopped,
        /// The router holds as many sessions as it may.
        TooManyConnections,
        /// The tenant has as many sessions as it may.
        TooManyTenantConnections {
            /// Tenant id. The client has named it, and access to it is on.
            tenant: String = "<tenant>".into(),
        },
        /// Too many connections of one client address, at once or within a time.
        TooManyFromAddress,
        /// Too many logins of one client address to one tenant are under way.
        TooManyLoginsUnderWay,
        /// Too many logins of one client address to one tenant within a time, whose TLS passes
        /// through: whether they failed is not seen, so that all of them count.
        TooManyUnseenLogins,
        /// More logins to the tenant were begun than its rate allows.
        TooManyLogins {
            /// Tenant id. The client has named it, and access to it is on.
            tenant: String = "<tenant>".into(),
        },
        /// Too many logins of one client address to one tenant have failed.
        TooManyFailedLogins {
            /// How long it has to wait.
            seconds: u64 = 1,
        },
        /// The tenant's server closed the connection before the client was logged in.
        BackendGone,
        /// The client took too long to answer what the tenant's server had asked it for.
        LoginDeadline,
        /// The sessions of the tenant were ended: access was disabled, or an administrator said so.
        Terminated,
        /// The router is about to end and takes no new sessions.
        Draining,
        /// The router ends, and this session with it.
        RouterEnding,
        /// The router itself is at fault: it could not read its registry, or ran out of something.
        RouterFault,
        /// The startup packet does not end where its parameters do.
        MalformedStartup,
        /// More came together with an SSLRequest: it may have been put there by a third party.
        DataAfterSslRequest,
        /// More came together with a GSSENCRequest: it may have been put there by a third party.
        DataAfterGssRequest,
        /// A protocol version that no server speaks.
        UnsupportedProtocol {
            /// What the client asked for.
            version: ProtocolVersion = ProtocolVersion { major: 2, minor: 0 },
        },
        /// The startup packet names no user.
        MissingUser,
        /// The client is to be told to its tenant, and its packet is too long for that.
        NoRoomForAddress,
        /// A trusted proxy does not begin with a PROXY protocol header that can be read.
        NoProxyHeader,
    }
}

impl Refusal {
    /// What to count it under: a short name that never changes.
    pub fn name(&self) -> &'static str {
        self.name_and_sqlstate().0
    }

    /// What kind of error it is.
    pub fn sqlstate(&self) -> SqlState {
        self.name_and_sqlstate().1
    }

    /// What the client is told.
    pub fn error_response(&self) -> ErrorResponse {
        ErrorResponse {
            severity: Severity::Fatal,
            sqlstate: self.sqlstate(),
            message: self.message(),
            detail: self.detail(),
            hint: Some(self.hint().into()),
        }
    }

    /// The bytes that tell the client.
    pub fn encode(&self) -> Bytes {
        match self {
            // PostgreSQL answers a client that is too old in the form that it knows, except to a
            // version word of 0, which it takes for "not known yet".
            Self::UnsupportedProtocol { version } if version.major < 3 && version.word() != 0 => {
                self.error_response().encode_protocol_2()
            }
            _ => self.error_response().encode(),
        }
    }

    fn name_and_sqlstate(&self) -> (&'static str, SqlState) {
        match self {
            Self::NoAccess { .. } => ("no_access", SqlState::INVALID_AUTHORIZATION),
            Self::InternalRole { .. } => ("internal_role", SqlState::INVALID_AUTHORIZATION),
            Self::TlsRequired => ("tls_required", SqlState::INVALID_AUTHORIZATION),
            Self::PassthroughOnly => ("passthrough_only", SqlState::INVALID_AUTHORIZATION),
            Self::PassthroughUnavailable => {
                ("passthrough_unavailable", SqlState::CANNOT_CONNECT_NOW)
            }
            Self::PassthroughNotListening => {
                ("passthrough_not_listening", SqlState::CANNOT_CONNECT_NOW)
            }
            Self::ClientCertificateRequired => (
                "client_certificate_required",
                SqlState::INVALID_AUTHORIZATION,
            ),
            Self::ClientCertificateUser { .. } => {
                ("client_certificate_user", SqlState::INVALID_AUTHORIZATION)
            }
            Self::TenantNotAccepting => ("tenant_not_accepting", SqlState::CANNOT_CONNECT_NOW),
            Self::TenantNotAnswering => ("tenant_not_answering", SqlState::CANNOT_CONNECT_NOW),
            Self::TenantStopped => ("tenant_stopped", SqlState::CANNOT_CONNECT_NOW),
            Self::TooManyConnections => ("too_many_connections", SqlState::TOO_MANY_CONNECTIONS),
            Self::TooManyTenantConnections { .. } => (
                "too_many_tenant_connections",
                SqlState::TOO_MANY_CONNECTIONS,
            ),
            Self::TooManyFromAddress => ("too_many_from_address", SqlState::TOO_MANY_CONNECTIONS),
            Self::TooManyLoginsUnderWay => {
                ("too_many_logins_under_way", SqlState::TOO_MANY_CONNECTIONS)
            }
            Self::TooManyUnseenLogins => ("too_many_unseen_logins", SqlState::TOO_MANY_CONNECTIONS),
            Self::TooManyLogins { .. } => ("too_many_logins", SqlState::TOO_MANY_CONNECTIONS),
            Self::TooManyFailedLogins { .. } => {
                ("too_many_failed_logins", SqlState::INVALID_AUTHORIZATION)
            }
            Self::BackendGone => ("backend_gone", SqlState::CONNECTION_FAILURE),
            Self::LoginDeadline => ("login_deadline", SqlState::QUERY_CANCELED),
            Self::Terminated => ("terminated", SqlState::ADMIN_SHUTDOWN),
            Self::Draining => ("draining", SqlState::CANNOT_CONNECT_NOW),
            Self::RouterEnding => ("router_ending", SqlState::ADMIN_SHUTDOWN),
            Self::RouterFault => ("router_fault", SqlState::SYSTEM_ERROR),
            Self::MalformedStartup => ("malformed_startup", SqlState::PROTOCOL_VIOLATION),
            Self::DataAfterSslRequest => ("data_after_ssl_request", SqlState::PROTOCOL_VIOLATION),
            Self::DataAfterGssRequest => ("data_after_gss_request", SqlState::PROTOCOL_VIOLATION),
            Self::UnsupportedProtocol { .. } => {
                ("unsupported_protocol", SqlState::FEATURE_NOT_SUPPORTED)
            }
            Self::MissingUser => ("missing_user", SqlState::INVALID_AUTHORIZATION),
            Self::NoRoomForAddress => ("no_room_for_address", SqlState::PROGRAM_LIMIT_EXCEEDED),
            Self::NoProxyHeader => ("no_proxy_header", SqlState::PROTOCOL_VIOLATION),
        }
    }

    fn message(&self) -> String {
        let message = match self {
            Self::NoAccess {
                user,
                database,
                address,
            } => {
                return format!(
                    "no access for user \"{user}\" to database \"{database}\" from {address}"
                );
            }
            Self::InternalRole { user } => {
                return format!("role \"{user}\" cannot log in through this port");
            }
            Self::ClientCertificateUser { user } => {
                return format!("certificate authentication failed for user \"{user}\"");
            }
            Self::TooManyTenantConnections { tenant } => {
                return format!("too many connections for tenant \"{tenant}\"");
            }
            Self::TooManyLogins { tenant } => {
                return format!("too many logins to tenant \"{tenant}\" within a short time");
            }
            Self::UnsupportedProtocol { version } => {
                let ProtocolVersion {
                    major: earliest, ..
                } = ProtocolVersion::EARLIEST;
                let latest = ProtocolVersion::LATEST;
                return format!(
                    "unsupported frontend protocol {version}: \
                     server supports {earliest}.0 to {latest}"
                );
            }
            Self::TlsRequired => "TLS is required",
            Self::PassthroughOnly => "TLS up to the database server itself is required",
            Self::PassthroughUnavailable => "the database server cannot be reached over TLS",
            Self::PassthroughNotListening => "the database server does not listen for TLS",
            Self::ClientCertificateRequired => "connection requires a valid client certificate",
            Self::TenantNotAccepting => "the database system does not accept connections",
            Self::TenantNotAnswering => "the database system does not answer",
            Self::TenantStopped => "the database system is starting up or not running",
            Self::TooManyConnections => "sorry, too many clients already",
            Self::TooManyFromAddress => "too many connections from this address",
            Self::TooManyLoginsUnderWay => "too many logins from this address are under way",
            Self::TooManyUnseenLogins => "too many logins from this address within a short time",
            Self::TooManyFailedLogins { .. } => "too many failed logins from this address",
            Self::BackendGone => "the database system closed the connection before the login ended",
            Self::LoginDeadline => "canceling authentication due to timeout",
            Self::Terminated => "terminating connection due to administrator command",
            Self::Draining => "the database system is shutting down",
            Self::RouterEnding => "terminating connection because the router ends",
            Self::RouterFault => "the router could not handle the connection",
            Self::MalformedStartup => {
                "invalid startup packet layout: expected terminator as last byte"
            }
            Self::DataAfterSslRequest => "received unencrypted data after SSL request",
            Self::DataAfterGssRequest => {
                "received unencrypted data after GSSAPI encryption request"
            }
            Self::MissingUser => "no PostgreSQL user name specified in startup packet",
            Self::NoRoomForAddress => "startup packet has no room for the client's address",
            Self::NoProxyHeader => "connection does not begin with a PROXY protocol header",
        };
        message.to_owned()
    }

    fn detail(&self) -> Option<String> {
        let text = match self {
            Self::TooManyFailedLogins { seconds } => {
                return Some(format!("The next login may be tried in {seconds} s."));
            }
            Self::DataAfterSslRequest | Self::DataAfterGssRequest => {
                "This could be either a client-software bug or evidence of an attempted \
                 man-in-the-middle attack."
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
