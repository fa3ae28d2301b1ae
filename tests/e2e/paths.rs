//! Who moves a session's bytes, where the tenant or the client's program decides it.

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[("bulk_is_relayed", bulk_is_relayed)];

/// Logs in as a program of that name, and says by whom the session is moved, and why.
fn path_of(router: &Router, login: &Login, program: &str) -> anyhow::Result<(String, String)> {
    let mut wire = Wire::connect_tcp(router.address())?;
    let parameters = [("user", &*login.user), ("application_name", program)];
    wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
    let greeting = wire.authenticate(&login.password)?;
    ensure!(greeting.refused().is_none(), "{greeting:?}");
    let answer = wire.query_value("select repeat('x', 1000000)")?;
    ensure!(answer.len() == 1_000_000, "{} bytes", answer.len());
    let sessions = router.sessions(&login.user)?;
    let session = sessions.last().context("no session is listed")?;
    let text = |key: &str| session[key].as_str().unwrap_or_default().to_owned();
    Ok((text("path"), text("path_reason")))
}

fn bulk_is_relayed(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant("mover")?;
    let login = tenant.login();
    let usual = stage.path().as_str();
    let (path, _) = path_of(router, login, "psql")?;
    ensure!(path == usual, "psql: {path}");
    let (path, reason) = path_of(router, login, "pg_dump")?;
    ensure!(path == "relay", "pg_dump: {path}");
    ensure!(reason.contains("application_name"), "{reason}");
    router.pgs(&["set", tenant.id(), "path=relay"])?;
    let (path, reason) = path_of(router, login, "psql")?;
    ensure!(path == "relay", "path=relay: {path}");
    ensure!(reason.contains("path=relay"), "{reason}");
    router.pgs(&["set", tenant.id(), "--unset", "path"])?;
    let (path, _) = path_of(router, login, "psql")?;
    ensure!(path == usual, "psql again: {path}");
    Ok(())
}
