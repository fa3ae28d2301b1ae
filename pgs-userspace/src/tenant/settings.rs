//! What an operator may decide for each tenant by itself.
//!
//! The registry holds what was decided, as text; everything else is as `[tenant_defaults]` of the
//! configuration file says, or as [`TenantSettings::default`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::limits::LOGIN_DEADLINE_DEFAULT;
use crate::config::limits::TENANT_CONNECTIONS_BURST_DEFAULT;
use crate::config::limits::TENANT_CONNECTIONS_MAX_DEFAULT;
use crate::config::network::Networks;
use crate::config::section::Key;
use crate::config::section::Section;
use crate::key;
use crate::word_value;

/// Whether a tenant's clients encrypt, and who ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsPolicy {
    /// As the client likes.
    #[default]
    Optional,
    /// A session in the clear is refused.
    Required,
    /// The tenant's own server ends it.
    Passthrough,
}

word_value!(
    TlsPolicy,
    Optional = "optional",
    Required = "required",
    Passthrough = "passthrough"
);

/// Whether a tenant's clients prove who they are by a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Off,
    /// One that is shown must be good.
    Optional,
    /// They must show a good one.
    Required,
    /// They must show a good one that bears the user's name.
    VerifyUser,
}

word_value!(
    ClientCertificates,
    Off = "off",
    Optional = "optional",
    Required = "required",
    VerifyUser = "verify-user"
);

/// Who moves the bytes of a tenant's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathPolicy {
    /// Whom the router has chosen at its start, but the relay for programs that move bulk.
    #[default]
    Auto,
    /// The relay.
    Relay,
}

word_value!(PathPolicy, Auto = "auto", Relay = "relay");

/// What holds for one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSettings {
    /// From where clients may connect; from everywhere where it is empty.
    pub allow: Networks,
    /// Sessions at once.
    pub connections_max: usize,
    /// Logins begun a minute, in the long run.
    pub connection_rate_per_minute: Option<u32>,
    /// Logins begun at once, before the rate counts.
    pub connection_burst: u32,
    /// Whether clients encrypt.
    pub tls: TlsPolicy,
    /// Whether clients prove who they are by a certificate.
    pub client_certificates: ClientCertificates,
    /// Certificates of the authorities that sign the clients' ones.
    pub client_ca: Option<PathBuf>,
    /// Whether the tenant's SQL can read the client's address.
    pub client_address: bool,
    /// Who moves the bytes.
    pub path: PathPolicy,
    /// A session that moves no byte for so long is closed, without a message.
    pub idle_session_timeout: Option<Duration>,
    /// From accept to the end of authentication, but for what it waits for its turn.
    pub login_deadline: Duration,
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            allow: Networks::default(),
            connections_max: TENANT_CONNECTIONS_MAX_DEFAULT,
            connection_rate_per_minute: None,
            connection_burst: TENANT_CONNECTIONS_BURST_DEFAULT,
            tls: TlsPolicy::default(),
            client_certificates: ClientCertificates::default(),
            client_ca: None,
            client_address: true,
            path: PathPolicy::default(),
            idle_session_timeout: None,
            login_deadline: LOGIN_DEADLINE_DEFAULT,
        }
    }
}

impl Section for TenantSettings {
    const NAME: &'static str = "tenant_defaults";

    const KEYS: &'static [Key<Self>] = &[
        key!(allow: Networks, "from where clients may connect; from everywhere if empty"),
        key!(connections_max: usize, "sessions at once"),
        key!(connection_rate_per_minute: Option<u32>, "logins begun a minute, in the long run"),
        key!(connection_burst: u32, "logins begun at once before `connection_rate_per_minute` \
                                     counts"),
        key!(tls: TlsPolicy, "whether clients must encrypt, and who ends it: pgs, or by \
                              `passthrough` the tenant's own server"),
        key!(client_certificates: ClientCertificates, "whether clients show a certificate; \
                                                       with `verify-user` its common name must \
                                                       be the user's"),
        key!(client_ca: Option<PathBuf>, "certificates of the authorities that sign the clients' \
                                          ones"),
        key!(client_address: bool, "whether SQL can read the client's address in \
                                    `pgs.client_addr`"),
        key!(path: PathPolicy, "who moves the bytes: as `pgs serve --path` says, but programs \
                                that move bulk by the relay; or everything by the relay"),
        key!(idle_session_timeout: Option<Duration>, "a session that moves no byte for so long is \
                                                      closed, without a message"),
        key!(login_deadline: Duration, "from the connection to the end of authentication, but \
                                        for what a login waits for its turn"),
    ];

    fn check(&self) -> Result<(), String> {
        if self.client_certificates == ClientCertificates::Off {
            return Ok(());
        }
        if self.tls == TlsPolicy::Passthrough {
            let why = "with `tls=passthrough` the tenant's own server asks for \
                       `client_certificates`";
            return Err(why.to_owned());
        }
        if self.client_ca.is_none() {
            return Err("`client_certificates` needs a `client_ca` to check them by".to_owned());
        }
        Ok(())
    }
}

/// Why something cannot be a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// There is none of that name.
    #[error("there is no setting `{name}`")]
    Unknown {
        /// As given.
        name: String,
        /// One that is like it.
        nearest: Option<&'static str>,
    },
    /// Its value does not do.
    #[error("`{name}`: {reason}")]
    Value {
        /// Whose.
        name: &'static str,
        /// Why not.
        reason: String,
    },
    /// It does not go with another.
    #[error("{0}")]
    Contradiction(String),
}

impl InvalidSetting {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown {
                nearest: Some(nearest),
                ..
            } => Some(format!("did you mean `{nearest}`?")),
            Self::Unknown { .. } => Some("`pgs set --help` lists them".to_owned()),
            Self::Value { .. } | Self::Contradiction(_) => None,
        }
    }
}

/// The setting of that name.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<&'static Key<TenantSettings>, InvalidSetting> {
    TenantSettings::key(name).ok_or_else(|| InvalidSetting::Unknown {
        name: name.to_owned(),
        nearest: TenantSettings::nearest(name),
    })
}

impl TenantSettings {
    /// Whether clients of that address may connect.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.contain(client)
    }

    /// Takes one value over.
    ///
    /// # Errors
    /// No such setting, or its value does not do.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), InvalidSetting> {
        let key = find(name)?;
        (key.assign)(self, text).map_err(|reason| InvalidSetting::Value {
            name: key.name,
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_written_so_that_it_reads_the_same() {
        let defaults = TenantSettings::default();
        for key in TenantSettings::KEYS {
            let mut settings = defaults.clone();
            settings.set(key.name, &(key.text)(&defaults)).unwrap();
            assert_eq!(settings, defaults, "{}", key.name);
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_one() {
        let mut settings = TenantSettings::default();
        let error = settings.set("conections_max", "1").unwrap_err();
        assert_eq!(
            error.hint().as_deref(),
            Some("did you mean `connections_max`?")
        );
        let error = settings.set("tls", "on").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`tls`: `on` is none of `optional`, `required`, `passthrough`"
        );
        assert_eq!(settings, TenantSettings::default());
    }

    #[test]
    fn certificates_cannot_be_checked_by_nothing() {
        let mut settings = TenantSettings::default();
        settings.set("client_certificates", "required").unwrap();
        assert!(settings.check().is_err());
        settings.set("client_ca", "/etc/pgs/ca.pem").unwrap();
        assert_eq!(settings.check(), Ok(()));
        // Nobody but the server sees them.
        settings.set("tls", "passthrough").unwrap();
        assert!(settings.check().is_err());
    }
}
