//! `pgs set` and `pgs show`: what holds for one tenant, from its next connection on.

use std::time::Duration;

use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use super::HERE;
use super::THERE;
use super::counter;
use super::ensure_state;
use super::log_in;
use super::refused;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// How long a query is watched that must not be cancelled.
const SLEEP: Duration = Duration::from_millis(800);

/// Sends it the way libpq does: on a connection of its own, until the server closes it.
fn cancel(router: &Router, from: std::net::IpAddr, request: &[u8]) -> anyhow::Result<()> {
    let mut wire = Wire::connect_from(from, router.address())?;
    wire.send(request)?;
    ensure!(wire.receive_to_end()?.is_empty(), "an answer to a cancel");
    Ok(())
}

pub(super) fn allow_list(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant("fenced")?;
    let (id, login) = (tenant.id(), tenant.login());
    let mut before = log_in(router, HERE, login)?;

    router.pgs(&["set", id, "allow=127.0.0.2,2001:db8::/32"])?;
    let out = refused(router, HERE, login)?;
    ensure_state(&out, "28000", "from 127.0.0.1")?;
    let mut absent = login.clone();
    (absent.user, absent.database) = ("absent".into(), "absent".into());
    let unknown = format!("{:?}", refused(router, HERE, &absent)?);
    ensure!(
        format!("{out:?}").replace("fenced", "absent") == unknown,
        "tells that there is such a tenant: {out:?}, {unknown}"
    );
    let value = before.query_value("select 1")?;
    ensure!(value == "1", "a session from before goes on");

    let mut inside = Wire::connect_from(THERE, router.address())?;
    let request = inside.log_in(login)?.key()?.cancel_request();
    inside.send_query("select pg_sleep(0.8)")?;
    std::thread::sleep(SLEEP / 4);
    let refused_cancels = counter(router, "cancels_refused")?;
    cancel(router, HERE, &request)?;
    let states: Vec<_> = inside.until_ready()?;
    let states: Vec<_> = states.iter().filter_map(Message::sqlstate).collect();
    ensure!(states.is_empty(), "cancelled from outside: {states:?}");
    let refused_now = counter(router, "cancels_refused")?;
    ensure!(refused_now == refused_cancels + 1, "{refused_now}");
    inside.send_query("select pg_sleep(60)")?;
    std::thread::sleep(SLEEP / 4);
    cancel(router, THERE, &request)?;
    let states: Vec<_> = inside.until_ready()?;
    let states: Vec<_> = states.iter().filter_map(Message::sqlstate).collect();
    ensure!(states == ["57014"], "not cancelled from inside: {states:?}");

    router.pgs(&["set", id, "--unset", "allow"])?;
    log_in(router, HERE, login)?;
    Ok(())
}

pub(super) fn caps_and_rates(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant("capped")?;
    let (id, login) = (tenant.id(), tenant.login());

    router.pgs(&["set", id, "connections_max=2"])?;
    let sessions = [log_in(router, HERE, login)?, log_in(router, THERE, login)?];
    let third = refused(router, HERE, login)?;
    ensure_state(&third, "53300", "too many connections for tenant")?;
    log_in(router, HERE, stage.alpha()?)?;
    router.pgs(&["set", id, "connections_max=3"])?;
    let third = log_in(router, HERE, login)?;
    // Lowered below what there is: nobody is ended, and nobody comes in.
    router.pgs(&["set", id, "connections_max=1"])?;
    ensure_state(&refused(router, HERE, login)?, "53300", "too many")?;
    for mut session in sessions.into_iter().chain([third]) {
        ensure!(session.query_value("select 1")? == "1", "was ended");
    }

    let rate = "connection_rate_per_minute=1";
    router.pgs(&["set", id, "connections_max=100", rate, "connection_burst=2"])?;
    for _ in 0..2 {
        log_in(router, HERE, login)?;
    }
    for from in [HERE, THERE] {
        ensure_state(&refused(router, from, login)?, "53300", "too many logins")?;
    }
    log_in(router, HERE, stage.alpha()?)?;
    router.pgs(&["set", id, "connection_rate_per_minute=off"])?;
    log_in(router, HERE, login)?;
    Ok(())
}

pub(super) fn shown_and_checked(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant_with("shown", &[])?;
    let id = tenant.id();
    let shown = |name: &str| -> anyhow::Result<(String, String)> {
        let shown = router.pgs_json(&["show", id])?;
        let setting = &shown["settings"][name];
        let text = |key: &str| setting[key].as_str().unwrap_or_default().to_owned();
        Ok((text("value"), text("origin")))
    };
    ensure!(shown("connections_max")? == ("1000".into(), "default".into()));
    router.pgs(&["set", id, "connections_max=7", "idle_session_timeout=90min"])?;
    ensure!(shown("connections_max")? == ("7".into(), "tenant".into()));
    ensure!(shown("idle_session_timeout")? == ("90min".into(), "tenant".into()));
    let file = stage.installation()?.scratch("shown.toml");
    std::fs::write(&file, "[tenant_defaults]\nconnection_burst = 9\n")?;
    let config = file.to_string_lossy();
    let with_file = router.pgs_json(&["show", id, "--config", &config])?;
    let burst = &with_file["settings"]["connection_burst"];
    ensure!(
        burst["value"] == "9" && burst["origin"] == "file",
        "{burst}"
    );

    let table = router.pgs(&["show", id])?;
    ensure!(
        table.contains("connections_max") && table.contains("FROM"),
        "{table}"
    );
    for (arguments, words) in [
        (&["conections_max=1"][..], "did you mean `connections_max`?"),
        (&["connections_max=0"], "at least 1"),
        (&["allow=127.0.0.1/8"], "127.0.0.0/8"),
        (&["--unset", "alow"], "did you mean `allow`?"),
        (&["connections_max"], "name=value"),
        (
            &["connections_max=1", "--unset", "connections_max"],
            "at once",
        ),
        (&["client_certificates=required"], "client_ca"),
    ] {
        let mut command = router.command();
        command.args(["set", id]).args(arguments);
        let ended = process::run(&mut command, COMMAND_LIMIT)?;
        ensure!(
            ended.status.code() == Some(2) && ended.stderr.contains(words),
            "{arguments:?}: {ended:?}"
        );
    }
    ensure!(shown("connections_max")? == ("7".into(), "tenant".into()));
    let mut command = router.command();
    command.args(["set", "absent", "allow="]);
    let ended = process::run(&mut command, COMMAND_LIMIT)?;
    ensure!(ended.status.code() == Some(3), "{ended:?}");
    Ok(())
}
