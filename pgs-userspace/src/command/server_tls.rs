//! A tenant whose own server ends its clients' TLS: its certificate, and what must hold before.

use tokio::time::Instant;
use tokio::time::sleep;

use crate::command::Context;
use crate::command::configuration;
use crate::command::lock_ready;
use crate::command::reconcile;
use crate::command::status;
use crate::config::limits::CERTIFICATE_TAKEN_DEADLINE;
use crate::config::limits::CERTIFICATE_TAKEN_POLL_INTERVAL;
use crate::container::engine::Engine;
use crate::container::server_tls::TlsEnd;
use crate::error::Error;
use crate::error::Kind;
use crate::error::RUN_AS_ROOT;
use crate::privileges::Held;
use crate::privileges::NEEDED_TO_PASS_TLS_THROUGH;
use crate::server;
use crate::server::NamespaceError;
use crate::server::ServerTlsError;
use crate::tenant::id::TenantId;
use crate::tenant::record::Lifecycle;
use crate::tenant::record::Tenant;
use crate::tenant::registry::Registry;
use crate::tenant::settings::ClientCertificates;
use crate::tenant::settings::TenantSettings;
use crate::tenant::settings::TlsPolicy;
use crate::tenant::stored_settings::check;
use crate::tls::certificate::Certificate;
use crate::tls::client_authorities;
use crate::tls::client_authorities::ClientAuthorityFileError;

/// Where a router lacks what passing TLS through needs.
pub(super) const PRIVILEGES_HINT: &str = "run `pgs serve` as root, without `--user`: the router of \
                                          another user holds no capability; the packaged unit has \
                                          a drop-in for it, `passthrough.conf`";

/// Docker's name for the machine's own network.
const HOST_NETWORK: &str = "host";

/// How a tenant's server has to be started.
pub(super) fn wanted(settings: &TenantSettings) -> TlsEnd {
    match settings.tls {
        TlsPolicy::Passthrough => TlsEnd::Server,
        TlsPolicy::Optional | TlsPolicy::Required => TlsEnd::Router,
    }
}

/// What holds for a tenant.
pub(super) fn settings(
    context: &Context,
    registry: &Registry,
    tenant: &TenantId,
) -> Result<TenantSettings, Error> {
    let (_, effective) = configuration::read(context)?;
    let defaults = &effective.configuration().tenant_defaults;
    Ok(check(defaults, &registry.settings(tenant)?)?)
}

/// The tenants whose own servers are to end TLS.
pub(super) fn passed_through(
    context: &Context,
    registry: &Registry,
) -> Result<Vec<TenantId>, Error> {
    let mut tenants = Vec::new();
    for tenant in registry.all()? {
        let settings = settings(context, registry, &tenant.id)?;
        if tenant.lifecycle == Lifecycle::Ready && wanted(&settings) == TlsEnd::Server {
            tenants.push(tenant.id);
        }
    }
    Ok(tenants)
}

/// Refuses settings that would shut every client out.
pub(super) async fn check_possible(
    context: &Context,
    tenant: &Tenant,
    settings: &TenantSettings,
) -> Result<(), Error> {
    if settings.client_certificates != ClientCertificates::Off
        && let Some(path) = &settings.client_ca
    {
        client_authorities::load(path)?;
    }
    if wanted(settings) == TlsEnd::Router {
        return Ok(());
    }
    let id = &tenant.id;
    if tenant.blueprint.network.as_deref() == Some(HOST_NETWORK) {
        let message = format!(
            "tenant `{id}` shares this machine's network: TLS cannot be passed \
                               through to a server that has no loopback of its own"
        );
        let hint = "make the tenant without `--network host`";
        return Err(Error::new(Kind::Usage, message).with_hint(hint));
    }
    let engine = Engine::connect(&context.directories).await?;
    if engine.has_certificate(id).await? {
        return Ok(());
    }
    let message = format!("the server of tenant `{id}` has no certificate of its own");
    let hint = format!("`pgs tls set --tenant {id} --certificate FILE --key FILE` gives it one");
    Err(Error::new(Kind::Usage, message).with_hint(hint))
}

/// Says what is still to be done where the server is not started as its settings want it. They are
/// stored already: that it cannot be looked at is no failure.
pub(super) async fn advise(context: &Context, tenant: &TenantId, settings: &TenantSettings) {
    let printer = &context.printer;
    let does = match wanted(settings) {
        TlsEnd::Server => "lets its server listen for TLS",
        TlsEnd::Router => "lets its server no longer listen for TLS",
    };
    match made_for(context, tenant).await {
        Ok(Some(made_for)) if made_for != wanted(settings) => printer.hint(&format!(
            "`pgs restart {tenant}` {does}; its live sessions end"
        )),
        Ok(_) => {}
        Err(error) => printer.warning(&format!("its container cannot be looked at: {error}")),
    }
    // A router that does not answer does not serve it either, and other commands say so.
    if wanted(settings) == TlsEnd::Server
        && let Ok(Some(router)) = status::router(context).await
        && let Some(missing) = router.privileges.as_ref().and_then(missing_to_pass_through)
    {
        printer.warning(&format!(
            "the running `pgs serve` cannot pass TLS through: it lacks {missing}; clients of \
             tenant `{tenant}` are refused"
        ));
        printer.hint(PRIVILEGES_HINT);
    }
}

/// What a router lacks that is to pass TLS through, if it lacks anything.
pub(super) fn missing_to_pass_through(held: &Held) -> Option<String> {
    let missing = held.missing(&NEEDED_TO_PASS_TLS_THROUGH);
    (!missing.is_empty()).then(|| missing.join(" and "))
}

async fn made_for(context: &Context, tenant: &TenantId) -> Result<Option<TlsEnd>, Error> {
    let engine = Engine::connect(&context.directories).await?;
    let inspection = engine.inspect(tenant).await?;
    Ok(inspection.map(|inspection| inspection.tls))
}

/// Gives a tenant's server a certificate, and makes sure that clients are shown it where the server
/// listens for TLS already; else the one before stays. What may be done next.
pub(super) async fn install(
    context: &Context,
    tenant: &str,
    certificate: &Certificate,
    [certificate_pem, key_pem]: [Vec<u8>; 2],
) -> Result<Option<String>, Error> {
    let tenant = TenantId::parse(tenant)?;
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    let (_lock, _) = lock_ready(context, &registry, &tenant).await?;
    let engine = Engine::connect(&context.directories).await?;
    let pem = [certificate_pem, b"\n".to_vec(), key_pem].concat();
    engine.write_certificate(&tenant, pem).await?;
    if made_for(context, &tenant).await? == Some(TlsEnd::Server) {
        engine.reload(&tenant).await?;
        if let Err(error) = taken(context, &tenant, certificate).await {
            engine.restore_certificate(&tenant).await?;
            return Err(error);
        }
    }
    engine.keep_certificate(&tenant).await?;
    Ok(match settings(context, &registry, &tenant)?.tls {
        TlsPolicy::Passthrough => None,
        TlsPolicy::Optional | TlsPolicy::Required => Some(format!(
            "`pgs set {tenant} tls=passthrough` lets its clients see it"
        )),
    })
}

/// Waits until the server shows it.
async fn taken(
    context: &Context,
    tenant: &TenantId,
    certificate: &Certificate,
) -> Result<(), Error> {
    let directory = context.directories.socket_directory(tenant);
    let begin = Instant::now();
    loop {
        let shown = server::shown_certificate(&directory).await?;
        if shown == certificate.der() {
            return Ok(());
        }
        if begin.elapsed() > CERTIFICATE_TAKEN_DEADLINE {
            let message = format!("the server of tenant `{tenant}` does not take the certificate");
            let hint = format!("`pgs logs {tenant}` shows why; the one before stays");
            return Err(Error::new(Kind::Unhealthy, message).with_hint(hint));
        }
        sleep(CERTIFICATE_TAKEN_POLL_INTERVAL).await;
    }
}

impl From<ServerTlsError> for Error {
    fn from(error: ServerTlsError) -> Self {
        match &error {
            ServerTlsError::Unreachable(NamespaceError::Enter(_)) => {
                Self::new(Kind::PermissionDenied, error.to_string()).with_hint(RUN_AS_ROOT)
            }
            _ => Self::new(Kind::Unhealthy, error.to_string())
                .with_hint("`pgs logs <tenant>` shows more; the certificate before stays"),
        }
    }
}

impl From<ClientAuthorityFileError> for Error {
    fn from(error: ClientAuthorityFileError) -> Self {
        let message = format!("`client_ca`: {error}");
        match error {
            ClientAuthorityFileError::Read(error) => {
                let kind = Self::from(error).kind();
                Self::new(kind, message).with_hint("the file must be readable by `pgs serve` too")
            }
            ClientAuthorityFileError::Content { .. } => Self::new(Kind::Usage, message)
                .with_hint("it holds the authorities' `-----BEGIN CERTIFICATE-----` blocks"),
        }
    }
}
