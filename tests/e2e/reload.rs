//! The configuration file is read again while sessions go on.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::process::Finished;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;
use serde_json::Value;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "a_change_counts_at_the_next_connection",
        a_change_counts_at_the_next_connection,
    ),
    (
        "a_file_that_cannot_be_used_changes_nothing",
        a_file_that_cannot_be_used_changes_nothing,
    ),
    (
        "what_needs_a_restart_is_named",
        what_needs_a_restart_is_named,
    ),
];

const LIMIT: Duration = Duration::from_secs(10);

/// Exit code of a configuration that cannot be used.
const UNUSABLE: i32 = 18;

/// A router with a file, and that file.
struct Configured {
    router: Router,
    file: PathBuf,
}

impl Configured {
    fn begin(stage: &Stage, name: &str, text: &str) -> anyhow::Result<Self> {
        let installation = stage.installation()?;
        Ok(Self {
            router: installation.configured_router(name, text)?,
            file: installation.scratch(&format!("{name}.toml")),
        })
    }

    fn reload(&self, text: &str) -> anyhow::Result<Finished> {
        fs::write(&self.file, text)?;
        process::run(self.router.command().args(["config", "reload"]), LIMIT)
    }

    /// Reads it again by the signal; what the status says once it has said so.
    fn signalled(&self, text: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        fs::write(&self.file, text)?;
        self.router.signal(Signal::SIGHUP)?;
        process::eventually("SIGHUP is acted on", LIMIT, || {
            let status = self.router.status()?["configuration"].clone();
            Ok(done(&status).then_some(status))
        })
    }

    fn log_in(&self, login: &Login) -> anyhow::Result<Wire> {
        let mut wire = Wire::connect_tcp(self.router.address())?;
        wire.log_in(login)?;
        Ok(wire)
    }

    /// The SQLSTATE with which a newcomer is refused.
    fn refused(&self, login: &Login) -> anyhow::Result<String> {
        let mut wire = Wire::connect_tcp(self.router.address())?;
        wire.send(&startup_packet(PROTOCOL_3_0, &[("user", &login.user)]))?;
        let answer = wire.message()?;
        ensure!(answer.kind == b'E', "let in: {answer:?}");
        Ok(answer.sqlstate().unwrap_or_default())
    }
}

fn a_change_counts_at_the_next_connection(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    let configured = Configured::begin(stage, "reload", "[limits]\nsessions_max = 1\n")?;
    let mut first = configured.log_in(alpha)?;
    ensure!(configured.refused(alpha)? == "53300", "the limit holds");
    let printed = configured
        .reload("[limits]\nsessions_max = 2\n")?
        .success()?;
    ensure!(printed == "[limits] sessions_max: 1 → 2\n", "{printed:?}");
    let second = configured.log_in(alpha)?;
    ensure!(configured.refused(alpha)? == "53300", "the new limit holds");

    let text = "[limits]\nsessions_max = 2\n[tenant_defaults]\nallow = ['192.0.2.0/24']\n";
    let kept_out = |status: &Value| status["changed"][0]["name"] == "allow";
    configured.signalled(text, kept_out)?;
    drop(second);
    ensure!(
        configured.refused(alpha)? == "28000",
        "the address is refused"
    );
    ensure!(first.query_value("select 1")? == "1", "sessions go on");

    // Of a stranger's rate nothing is forgotten: what was used up stays so.
    let text = "[limits]\naddress_connection_rate_per_minute = 1\naddress_connection_burst = 2\n";
    configured.reload(text)?.success()?;
    drop(configured.log_in(alpha)?);
    drop(configured.log_in(alpha)?);
    for _ in 0..2 {
        let mut wire = Wire::connect_tcp(configured.router.address())?;
        ensure!(wire.message()?.sqlstate().as_deref() == Some("53300"));
        configured
            .reload(&format!("{text}sessions_max = 5\n"))?
            .success()?;
    }
    let printed = configured.reload("")?.success()?;
    ensure!(printed.contains("sessions_max: 5 → 9000"), "{printed}");
    drop(configured.log_in(alpha)?);
    ensure!(first.query_value("select 2")? == "2", "sessions go on");
    Ok(())
}

fn a_file_that_cannot_be_used_changes_nothing(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    let good = "[limits]\nsessions_max = 1\n";
    let configured = Configured::begin(stage, "reload-bad", good)?;
    let mut session = configured.log_in(alpha)?;
    let bad = "[limits]\nsesions_max = 9\nlogin_failures_max = 1\n";
    let ended = configured.reload(bad)?;
    ensure!(ended.status.code() == Some(UNUSABLE), "{ended:?}");
    let says = |text: &str| text.contains("line 2") && text.contains("`sessions_max`?");
    ensure!(says(&ended.stderr), "{ended:?}");
    ensure!(
        configured.refused(alpha)? == "53300",
        "the old limit does not hold"
    );

    let no_certificate = "[tls]\nrequired = true\n";
    for (bad, why) in [
        (bad, "sessions_max"),
        (no_certificate, "needs a certificate"),
    ] {
        let said = |status: &Value| status["error"].as_str().is_some_and(|e| e.contains(why));
        configured.signalled(bad, said)?;
        let shown = configured.router.pgs(&["status"])?;
        ensure!(
            shown.contains("not read again:") && shown.contains(why),
            "{shown}"
        );
        ensure!(configured.router.log().contains(why), "the log");
    }
    ensure!(
        configured.refused(alpha)? == "53300",
        "the old limit does not hold"
    );
    fs::remove_file(&configured.file)?;
    let reload = ["config", "reload"];
    let ended = process::run(configured.router.command().args(reload), LIMIT)?;
    ensure!(ended.status.code() == Some(UNUSABLE), "{ended:?}");
    ensure!(
        configured.refused(alpha)? == "53300",
        "the old limit does not hold"
    );

    configured.reload(good)?.success()?;
    let status = configured.router.status()?;
    ensure!(status["configuration"]["error"].is_null(), "{status}");
    ensure!(session.query_value("select 1")? == "1", "sessions go on");
    Ok(())
}

fn what_needs_a_restart_is_named(stage: &Stage) -> anyhow::Result<()> {
    let configured = Configured::begin(stage, "reload-restart", "")?;
    let text = "[limits]\narrivals_max = 7\nsessions_max = 8\n";
    let printed = configured.reload(text)?.success()?;
    ensure!(
        printed.contains("[limits] sessions_max: 9000 → 8\n")
            && printed.contains("arrivals_max: 4096 → 7, once `pgs serve` is started anew\n"),
        "{printed}"
    );
    let shown = configured.router.pgs(&["status"])?;
    ensure!(
        shown.contains("waits for a restart: [limits] arrivals_max: 4096 → 7"),
        "{shown}"
    );
    // It waits still, and nothing else has changed.
    let again = configured.reload(text)?.success()?;
    ensure!(
        again.starts_with("nothing has changed\n") && again.contains("arrivals_max"),
        "{again}"
    );
    // What the command line says counts before the file, then as at the start.
    let printed = configured.reload("[serve]\npath = 'auto'\n")?.success()?;
    ensure!(!printed.contains("path"), "{printed}");
    let status = configured.router.status()?;
    let waiting = &status["configuration"]["needs_restart"];
    ensure!(waiting.as_array().is_some_and(Vec::is_empty), "{waiting}");
    Ok(())
}
