//! TLS towards clients, each scenario on an installation of its own: certificates count for all of
//! a router's clients, and the other scenarios compare with a server that has none.

mod client_certificates;
mod deadlines;
mod ending;
mod libpq;
mod negotiation;
mod passthrough;
mod passthrough_libpq;
mod passthrough_set_up;
mod passthrough_strangers;
mod policy;
mod proxied;
mod reload;
mod session;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pgs_tests::installation::Installation;
use pgs_tests::login::first_packet;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Tenant;
use pgs_tests::trust;
use pgs_tests::trust::ALPN;
use pgs_tests::trust::Issued;
use pgs_tests::wire::Wire;

use anyhow::ensure;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "requests_and_handshakes",
        negotiation::requests_and_handshakes,
    ),
    ("a_server_name_names_the_tenant", negotiation::server_names),
    ("required_for_sessions", negotiation::required_for_sessions),
    ("psql_in_every_sslmode", libpq::psql_in_every_sslmode),
    (
        "libpq_18_direct_and_cancel",
        libpq::libpq_18_direct_and_cancel,
    ),
    (
        "every_byte_and_every_end",
        session::every_byte_and_every_end,
    ),
    ("cancel", session::cancel),
    ("behind_a_proxy", proxied::behind_a_proxy),
    ("ended_by_the_router", ending::ended_by_the_router),
    ("deadlines_of_arrivals", deadlines::arrivals),
    (
        "certificates_change_while_serving",
        reload::certificates_change,
    ),
    ("passthrough", passthrough::the_servers_own_tls),
    (
        "passthrough_leaves_a_tenant_its_places",
        passthrough_strangers::leave_a_tenant_its_places,
    ),
    (
        "passthrough_counts_for_the_address",
        passthrough_strangers::count_for_their_address,
    ),
    (
        "passthrough_bounds_guesses",
        passthrough_strangers::guess_so_often,
    ),
    (
        "passthrough_leaves_few_lines",
        passthrough_strangers::leave_few_lines,
    ),
    (
        "passthrough_refusals",
        passthrough::what_does_not_get_through,
    ),
    (
        "passthrough_without_a_certificate_here",
        passthrough::without_a_certificate_here,
    ),
    (
        "passthrough_certificate_is_replaced",
        passthrough_set_up::certificate_is_replaced,
    ),
    (
        "passthrough_begins_and_ends",
        passthrough_set_up::begins_and_ends,
    ),
    (
        "passthrough_libpq",
        passthrough_libpq::channel_binding_and_cancel,
    ),
    (
        "passthrough_cancels_where_there_is_no_room",
        passthrough_libpq::cancels_where_there_is_no_room,
    ),
    (
        "client_certificates",
        client_certificates::each_policy_and_each_client,
    ),
    ("client_certificates_libpq", client_certificates::with_libpq),
    ("required_by_one_tenant", policy::required_by_one_tenant),
    ("version_min", policy::version_min),
];

const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;

/// The tenant of these scenarios.
const TENANT: &str = "sealed";

/// Domain under which server names name tenants.
const DOMAIN: &str = "db.test";

/// How soon a running router notices files that changed, with a margin for a busy machine.
const NOTICED: Duration = Duration::from_secs(5);

/// An installation with a default certificate, and what to do with it.
fn with_tls(
    stage: &Stage,
    arguments: &[&str],
    scenario: impl FnOnce(&Ground<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let installation = Installation::start(stage.path())?;
    let tenant = installation.create_tenant(TENANT)?;
    let wild = format!("*.{DOMAIN}");
    let issued = trust::issue(&installation.scratch("issued"), &["localhost", &wild])?;
    let ground = Ground {
        router: serve(&installation, &issued, arguments)?,
        tenant,
        issued,
        installation: &installation,
    };
    scenario(&ground)
}

fn serve(
    installation: &Installation,
    issued: &Issued,
    arguments: &[&str],
) -> anyhow::Result<Router> {
    install(installation, &["--default"], issued)?;
    serve_as_it_is(installation, "tls-run", arguments)
}

/// With the certificates that are there, or with none.
fn serve_as_it_is(
    installation: &Installation,
    run: &str,
    arguments: &[&str],
) -> anyhow::Result<Router> {
    let (state, run) = (installation.scratch("state"), installation.scratch(run));
    let path = installation.path();
    let arguments = [
        &["--path", path.as_str(), "--tls-domain", DOMAIN],
        arguments,
    ]
    .concat();
    Router::start_with(&state, &run, &arguments)
}

fn install(installation: &Installation, whose: &[&str], issued: &Issued) -> anyhow::Result<()> {
    let (certificate, key) = (
        issued.certificate.to_string_lossy(),
        issued.key.to_string_lossy(),
    );
    let files = ["--certificate", &certificate, "--key", &key];
    let set = [&["tls", "set"], whose, &files].concat();
    installation.router().pgs(&set)?;
    Ok(())
}

/// What a scenario works on. Ends in the order of the fields.
struct Ground<'a> {
    router: Router,
    tenant: Tenant<'a>,
    issued: Issued,
    installation: &'a Installation,
}

impl Ground<'_> {
    /// A connection in the clear that has said nothing yet.
    fn connect(&self) -> anyhow::Result<Wire> {
        Wire::connect_tcp(self.router.address())
    }

    /// A connection that has been granted TLS by SSLRequest.
    fn granted(&self) -> anyhow::Result<Wire> {
        let mut wire = self.connect()?;
        wire.send(&first_packet(SSL_REQUEST, b""))?;
        let answer = wire.receive(1)?;
        ensure!(answer == b"S", "SSLRequest was answered {answer:?}");
        Ok(wire)
    }

    /// A connection over TLS, begun by SSLRequest.
    fn asked(&self) -> anyhow::Result<Wire> {
        self.granted()?
            .secure(trust::client(Some("localhost"), None)?)
    }

    /// A connection over TLS, begun without a request.
    fn direct(&self) -> anyhow::Result<Wire> {
        self.connect()?
            .secure(trust::client(Some("localhost"), Some(ALPN))?)
    }

    /// A connection over TLS to the tenant's own host name.
    fn named(&self) -> anyhow::Result<Wire> {
        let name = format!("{TENANT}.{DOMAIN}");
        self.granted()?.secure(trust::client(Some(&name), None)?)
    }

    /// A session over TLS.
    fn log_in(&self) -> anyhow::Result<Wire> {
        let mut wire = self.asked()?;
        wire.log_in(self.tenant.login())?;
        Ok(wire)
    }

    /// Where the router looks for certificates.
    fn certificates(&self) -> PathBuf {
        self.installation.scratch("state/tls")
    }

    /// The certificate that a client is shown.
    fn shown(&self, name: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let wire = self.granted()?.secure(trust::client(name, None)?)?;
        let shown = wire.tls()?.peer_certificates().unwrap_or_default();
        ensure!(!shown.is_empty(), "no certificate");
        Ok(shown[0].to_vec())
    }

    /// Another certificate, not installed.
    fn issue(&self, name: &str) -> anyhow::Result<Issued> {
        let directory = self.installation.scratch(&format!("issued-{name}"));
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        trust::issue(&directory, &[name])
    }
}
