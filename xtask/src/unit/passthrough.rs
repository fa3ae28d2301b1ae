//! The unit with the drop-in by which it passes TLS through.

use super::checks::Checks;
use super::traffic::{Session, TENANT, client};
use crate::report::Step;
use crate::{process, workspace};
use anyhow::{Context, Result, ensure};
use std::fs;

const DROP_IN: &str = "pgs.service.d/passthrough.conf";
/// Below it every tenant has its name.
pub(super) const DOMAIN: &str = "pgs.test";

/// A client is served by its tenant's server over TLS that the server itself ends.
pub(super) fn check(checks: &Checks<'_>, port: u16) -> Result<()> {
    let step = Step::new("with passthrough.conf");
    let host = format!("{TENANT}.{DOMAIN}");
    let place = checks.machine.file("etc/systemd/system").join(DROP_IN);
    let packaged = workspace::root().join("packaging").join(DROP_IN);
    fs::copy(&packaged, &place).with_context(|| format!("copy {}", packaged.display()))?;
    checks.serve_as("/usr/bin/pgs", port)?;
    checks.systemctl(&["start", "pgs"])?;
    let pgs = |arguments: &[&str]| process::output(&mut checks.pgs(arguments));
    pgs(&["tls", "self-signed", "--name", &host])?;
    let files = checks.machine.state().join("tls/default");
    let (certificate, key) = (files.join("fullchain.pem"), files.join("privkey.pem"));
    let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    let mut set = vec!["tls", "set", "--tenant", TENANT];
    set.extend(["--certificate", &certificate, "--key", &key]);
    pgs(&set)?;
    pgs(&["set", TENANT, "tls=passthrough"])?;
    pgs(&["restart", TENANT])?;
    let ends_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let mut psql = client("psql", port);
    psql.env("PGHOST", &host)
        .env("PGHOSTADDR", "127.0.0.1")
        .env("PGSSLMODE", "require")
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command"])
        .arg(ends_tls);
    let said = process::output(&mut psql)?;
    ensure!(said.trim() == "t", "the server says of its own TLS: {said}");
    let kept = checks.machine.said(&["pgs", "status"]);
    ensure!(kept.contains("CAP_SYS_PTRACE"), "{kept}");
    checks.stop_at_once()?;
    step.done("the server ends TLS");
    checks.exposure()?;

    let step = Step::new("without it again");
    fs::remove_file(&place)?;
    pgs(&["set", TENANT, "tls=optional"])?;
    pgs(&["restart", TENANT])?;
    let tmpfiles = ["systemd-tmpfiles", "--create", "pgs.conf"];
    checks.machine.run(&tmpfiles)?;
    checks.serve_as("/usr/bin/pgs", port)?;
    checks.systemctl(&["start", "pgs"])?;
    Session::begin(port)?.answers()?;
    checks.stop_at_once()?;
    step.done("the unit's own user serves");
    Ok(())
}
