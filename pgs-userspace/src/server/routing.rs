//! Which tenant a client wants.

use std::net::IpAddr;

use tokio::time::Instant;

use super::connection::FrontDoor;
use super::live::Rules;
use crate::config::limits::NEXT_NAME_ANSWER_DELAY;
use crate::protocol::startup::StartupMessage;
use crate::tenant::id::TenantId;
use crate::tenant::registry::RegistryError;
use crate::tenant::route::Destination;

/// What says it beside the startup packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hints<'a> {
    /// The host name that the client asked for.
    pub(super) server_name: Option<&'a str>,
    /// For whom the listener is above all.
    pub(super) pinned: Option<&'a TenantId>,
}

impl FrontDoor {
    /// The tenant that the server name is for, if it is one for tenants; else the one called like
    /// the user, else like the database, else like the option says; where there is no option, the
    /// listener's. One that keeps the client out is passed over like one that does not exist, but
    /// there is nothing behind a server name.
    pub(super) async fn route(
        &self,
        rules: &Rules,
        hints: Hints<'_>,
        message: &StartupMessage,
        client: IpAddr,
    ) -> Result<Destination, RegistryError> {
        let label = |name| rules.encryption.tenant_label(name);
        if let Some(label) = hints.server_name.and_then(label) {
            return self.routes.find(label, label, client);
        }
        let asked = Instant::now();
        let found = self.named(hints.pinned, message, client)?;
        if !is_users(&found, message) {
            // What the look-up of the names before took must not show in what this one answers.
            let at = asked + NEXT_NAME_ANSWER_DELAY;
            self.punctual.sleep_until(at).await;
        }
        Ok(found)
    }

    fn named(
        &self,
        pinned: Option<&TenantId>,
        message: &StartupMessage,
        client: IpAddr,
    ) -> Result<Destination, RegistryError> {
        let (user, database) = (lossy(message.user()), lossy(message.database()));
        let first = self.routes.find(&user, &database, client)?;
        if matches!(first, Destination::Tenant(_)) {
            return Ok(first);
        }
        let option = message.tenant_option();
        let named = option.as_deref().map(lossy);
        let later = match named.or_else(|| pinned.map(ToString::to_string)) {
            Some(tenant) => self.routes.find(&tenant, &tenant, client)?,
            None => Destination::Unknown,
        };
        Ok(first.or(later))
    }
}

/// Whether the first name that counted led to a tenant. Then there was none before it.
fn is_users(found: &Destination, message: &StartupMessage) -> bool {
    match found {
        Destination::Tenant(route) => route.tenant.as_str().as_bytes() == message.user(),
        Destination::KeptOut(_) | Destination::Unknown => false,
    }
}

/// As text, whatever encoding it is in.
pub(super) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Parsed;
    use crate::protocol::startup::FirstPacket;
    use crate::protocol::startup::parse;
    use crate::tenant::route::Route;
    use crate::tenant::settings::TenantSettings;

    /// Everybody else has to wait.
    #[test]
    fn who_is_called_like_the_tenant_does_not_wait() {
        let body = b"user\0acme\0database\0beta\0\0";
        let length = u32::try_from(body.len() + 8).unwrap();
        let version = (3u32 << 16).to_be_bytes();
        let packet = [&length.to_be_bytes(), &version, &body[..]].concat();
        let Ok(Parsed::Complete { value, .. }) = parse(&packet) else {
            panic!("not a whole packet");
        };
        let FirstPacket::Startup(message) = value else {
            panic!("{value:?}");
        };
        let of = |name| {
            Destination::Tenant(Route {
                tenant: TenantId::parse(name).unwrap(),
                socket_directory: "/nonexistent".into(),
                settings: TenantSettings::default(),
            })
        };
        assert!(is_users(&of("acme"), &message));
        assert!(!is_users(&of("beta"), &message));
        assert!(!is_users(&Destination::Unknown, &message));
    }
}
