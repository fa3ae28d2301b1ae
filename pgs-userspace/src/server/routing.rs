//! Which tenant a client wants.

use super::connection::FrontDoor;
use super::live::Rules;
use crate::protocol::startup::StartupMessage;
use crate::tenant::id::TenantId;
use crate::tenant::registry::RegistryError;
use crate::tenant::route::Route;

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
    /// listener's.
    pub(super) fn route(
        &self,
        rules: &Rules,
        hints: Hints<'_>,
        message: &StartupMessage,
    ) -> Result<Option<Route>, RegistryError> {
        let label = |name| rules.encryption.tenant_label(name);
        if let Some(label) = hints.server_name.and_then(label) {
            return self.routes.find(label, label);
        }
        let (user, database) = (lossy(message.user()), lossy(message.database()));
        if let Some(found) = self.routes.find(&user, &database)? {
            return Ok(Some(found));
        }
        let option = message.tenant_option();
        let named = option.as_deref().map(lossy);
        match named.or_else(|| hints.pinned.map(ToString::to_string)) {
            Some(tenant) => self.routes.find(&tenant, &tenant),
            None => Ok(None),
        }
    }
}

/// As text, whatever encoding it is in.
pub(super) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
