//! Making a tenant's server end TLS itself, replacing its certificate, and taking it back.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::trust;
use pgs_tests::trust::Issued;

use super::Ground;
use super::TENANT;
use super::install;
use super::passthrough::host;
use super::passthrough::log_in;
use super::passthrough::pass_through;
use super::passthrough::with_passthrough;
use super::with_tls;

const DOCKER_LIMIT: Duration = Duration::from_secs(30);

/// The tenant's container.
fn container(ground: &Ground<'_>) -> anyhow::Result<String> {
    let state: PathBuf = ground.installation.scratch("state");
    let of = format!("label=dev.pgs.state-dir={}", state.display());
    let whose = format!("label=dev.pgs.tenant={TENANT}");
    let mut list = Command::new("docker");
    list.args(["ps", "--quiet", "--filter", &of, "--filter", &whose]);
    let printed = process::run(&mut list, DOCKER_LIMIT)?.success()?;
    Ok(printed.trim().to_owned())
}

fn in_container(ground: &Ground<'_>, command: &str) -> anyhow::Result<String> {
    let mut exec = Command::new("docker");
    exec.args(["exec", "--user", "postgres", &container(ground)?])
        .args(["sh", "-c", command]);
    process::run(&mut exec, DOCKER_LIMIT)?.success()
}

pub(super) fn certificate_is_replaced(stage: &Stage) -> anyhow::Result<()> {
    with_passthrough(stage, |ground, own| {
        let mut live = log_in(ground)?;
        let files = "cd \"$(psql -XAtq -h /var/run/postgresql -c 'show data_directory')\"; \
                     stat -c '%a %U %n' pgs-tls.pem*";
        ensure!(in_container(ground, files)? == "600 postgres pgs-tls.pem\n");
        let second = trust::issue(&ground.installation.scratch("second"), &[&host()])?;
        install(ground.installation, &["--tenant", TENANT], &second)?;
        let listed = &ground.router.pgs_json(&["tls", "show"])?["tenants"];
        ensure!(
            listed[0]["tenant"] == TENANT && listed[0]["names"][0] == host(),
            "{listed}"
        );
        ensure!(listed[0]["expires"].is_string(), "{listed}");
        // It was looked at before the command ended.
        ensure!(ground.shown(Some(&host()))? == second.der.as_ref());
        ensure!(
            live.query_value("select 1")? == "1",
            "a live session was touched"
        );
        ensure!(in_container(ground, files)? == "600 postgres pgs-tls.pem\n");
        let mixed = Issued {
            certificate: own.certificate.clone(),
            key: second.key.clone(),
            der: own.der.clone(),
        };
        let error = install(ground.installation, &["--tenant", TENANT], &mixed);
        let error = format!(
            "{:#}",
            error.err().context("two that do not belong together")?
        );
        ensure!(error.contains("does not belong"), "{error}");
        ensure!(ground.shown(Some(&host()))? == second.der.as_ref());
        ground.router.pgs(&["restart", TENANT])?;
        ensure!(
            ground.shown(Some(&host()))? == second.der.as_ref(),
            "lost by a restart"
        );
        drop(log_in(ground)?);
        Ok(())
    })
}

/// What a restart mends is said to be mended by it.
fn not_listening(ground: &Ground<'_>) -> anyhow::Result<()> {
    let first = trust::issue(&ground.installation.scratch("first"), &[&host()])?;
    install(ground.installation, &["--tenant", TENANT], &first)?;
    ground.router.pgs(&["set", TENANT, "tls=passthrough"])?;
    let mut wire = ground.named()?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", TENANT)]))?;
    let told = wire.message()?;
    ensure!(told.sqlstate().as_deref() == Some("57P03"), "{told:?}");
    let hint = told.field(b'H').unwrap_or_default();
    ensure!(hint.contains("`pgs restart <tenant>`"), "{told:?}");
    Ok(())
}

pub(super) fn begins_and_ends(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        let set = ground
            .router
            .command()
            .args(["set", TENANT, "tls=passthrough"])
            .output()?;
        let said = String::from_utf8_lossy(&set.stderr).into_owned();
        ensure!(set.status.code() == Some(2), "{:?} {said}", set.status);
        ensure!(said.contains("no certificate of its own"), "{said}");
        ensure!(said.contains("pgs tls set --tenant"), "{said}");
        not_listening(ground).context("before its server listens")?;
        pass_through(ground.installation)?;
        let rules = "cat \"$(psql -XAtq -h /var/run/postgresql -c 'show hba_file')\"";
        ensure!(in_container(ground, rules)?.contains("hostssl"));
        // The router reckons with it; no file of the tenant's can change it.
        let timeout = log_in(ground)?.query_value("show authentication_timeout")?;
        ensure!(timeout == "15s", "{timeout}");
        let before = container(ground)?;
        ground.router.pgs(&["restart", TENANT])?;
        ensure!(container(ground)? == before, "made again for nothing");
        ensure!(in_container(ground, rules)?.matches("hostssl").count() == 2);
        // A certificate that the server cannot use is not for good.
        in_container(
            ground,
            "cd \"$(psql -XAtq -h /var/run/postgresql -c 'show data_directory')\"; \
             echo damaged > pgs-tls.pem",
        )?;
        let restart = ground.router.command().args(["restart", TENANT]).output()?;
        let said = String::from_utf8_lossy(&restart.stderr).into_owned();
        ensure!(restart.status.code() == Some(11), "{said}");
        ensure!(said.contains("could not load server certificate"), "{said}");
        ground.router.pgs(&["set", TENANT, "--unset", "tls"])?;
        ground.router.pgs(&["restart", TENANT])?;
        ensure!(!in_container(ground, rules)?.contains("hostssl"));
        ensure!(ground.shown(Some(&host()))? == ground.issued.der.as_ref());
        let mut wire = ground.connect()?;
        wire.log_in(ground.tenant.login())?;
        ensure!(wire.query_value("show listen_addresses")?.is_empty());
        ensure!(wire.query_value("show ssl")? == "off");
        let mut wire = ground.named()?;
        wire.log_in(ground.tenant.login())?;
        Ok(())
    })
}
