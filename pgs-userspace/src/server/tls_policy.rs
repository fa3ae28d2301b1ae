//! Whether a client may log in to a tenant the way that it is connected.

use rustls::pki_types::CertificateDer;

use super::strangers;
use crate::protocol::refusal::Refusal;
use crate::tenant::route::Route;
use crate::tenant::settings::ClientCertificates;
use crate::tenant::settings::TlsPolicy;
use crate::tls::client_authorities::ClientAuthorities;
use crate::tls::client_certificate::ClientCertificateError;

/// What is known of a client's connection when its startup packet has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// Whether nobody in between can read along.
    pub(super) encrypted: bool,
    /// The certificate that it has shown, and those that signed it. Its key is the client's.
    pub(super) certificates: Option<&'a [CertificateDer<'static>]>,
    /// User of the startup message.
    pub(super) user: &'a [u8],
}

/// The policy of a tenant whose clients are let in.
pub(super) fn check(
    route: &Route,
    authorities: &ClientAuthorities,
    shown: Shown<'_>,
) -> Result<(), Refusal> {
    match route.settings.tls {
        // Whoever gets here did not get through to the tenant's server.
        TlsPolicy::Passthrough => return Err(Refusal::PassthroughOnly),
        TlsPolicy::Required if !shown.encrypted => return Err(Refusal::TlsRequired),
        TlsPolicy::Required | TlsPolicy::Optional => {}
    }
    match route.settings.client_certificates {
        ClientCertificates::Off => Ok(()),
        ClientCertificates::Optional if shown.certificates.is_none() => Ok(()),
        wanted => check_certificate(route, authorities, shown, wanted),
    }
}

fn check_certificate(
    route: &Route,
    authorities: &ClientAuthorities,
    shown: Shown<'_>,
    wanted: ClientCertificates,
) -> Result<(), Refusal> {
    let tenant = &route.tenant;
    // `pgs set` does not let it come to that; an edited default could.
    let Some(path) = &route.settings.client_ca else {
        if strangers::log_has_room("client_ca_missing") {
            tracing::error!(%tenant, "client certificates are wanted, and there is no `client_ca`");
        }
        return Err(Refusal::RouterFault);
    };
    let authority = authorities.get(path).map_err(|error| {
        if strangers::log_has_room("client_ca_unusable") {
            tracing::error!(%tenant, %error, "client certificates cannot be checked");
        }
        Refusal::RouterFault
    })?;
    let checked = match wanted {
        ClientCertificates::VerifyUser => authority.verify_user(shown.certificates, shown.user),
        _ => authority.verify(shown.certificates).map(drop),
    };
    checked.map_err(|error| {
        if strangers::log_has_room("client_certificate") {
            tracing::info!(%tenant, %error, "client certificate not taken");
        }
        match error {
            ClientCertificateError::OtherName(_) => Refusal::ClientCertificateUser {
                user: String::from_utf8_lossy(shown.user).into_owned(),
            },
            _ => Refusal::ClientCertificateRequired,
        }
    })
}

#[cfg(test)]
#[path = "tls_policy_tests.rs"]
mod tests;
