//! From create to remove, and what people do to containers by hand.

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs_tests::tenants::Installation;
use pgs_tests::tenants::docker;

/// For a server that Docker starts again: its recovery, and the first health check.
const HEALTHY_WITHIN: Duration = Duration::from_secs(90);

fn query(pgs: &Installation, tenant: &str, sql: &str) -> Result<String> {
    let outcome = pgs.pgs(&["psql", tenant, "--", "-XAtq", "-c", sql])?;
    ensure!(outcome.code == 0, "{sql}: {outcome:?}");
    Ok(outcome.stdout.trim().to_owned())
}

#[test]
fn three_tenants_are_three_servers() -> Result<()> {
    let Some(pgs) = Installation::for_test("three_tenants_are_three_servers") else {
        return Ok(());
    };
    for tenant in ["ann", "bob", "cleo"] {
        pgs.create(tenant, &[])?;
        query(
            &pgs,
            tenant,
            &format!("CREATE TABLE mine AS SELECT '{tenant}'::text AS name"),
        )?;
    }
    ensure!(pgs.pgs(&["stop"])?.code == 0);
    let states: Vec<_> = pgs
        .list()?
        .iter()
        .map(|entry| entry["container"].clone())
        .collect();
    ensure!(states.iter().all(|state| state == "stopped"), "{states:?}");
    let stopped = pgs.pgs(&["psql", "ann", "--", "-c", "SELECT 1"])?;
    ensure!(stopped.code == 11, "{stopped:?}");
    ensure!(pgs.pgs(&["start", "--tenant", "ann", "bob"])?.code == 0);
    ensure!(pgs.list()?[2]["container"] == "stopped");
    ensure!(pgs.pgs(&["restart"])?.code == 0);
    for tenant in ["ann", "bob", "cleo"] {
        ensure!(query(&pgs, tenant, "SELECT name FROM mine")? == tenant);
    }
    Ok(())
}

#[test]
fn a_container_removed_by_hand_is_missed_and_made_again() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_container_removed_by_hand_is_missed_and_made_again")
    else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    query(&pgs, "acme", "CREATE TABLE kept AS SELECT 42 AS answer")?;
    docker(&["rm", "-f", &pgs.container("acme")?])?;
    let listed = pgs.list()?;
    ensure!(
        listed[0]["container"] == "missing" && listed[0]["has_data"] == true,
        "{listed:?}"
    );
    let shown = pgs.pgs(&["list"])?;
    ensure!(shown.stdout.contains("missing") && shown.stderr.contains("`pgs start acme`"));
    ensure!(pgs.pgs(&["start", "acme"])?.code == 0);
    ensure!(query(&pgs, "acme", "SELECT answer FROM kept")? == "42");
    // Without its data it must not come back empty.
    let volume = pgs.container("acme")?;
    docker(&["rm", "-f", &volume])?;
    docker(&["volume", "rm", &volume])?;
    let refused = pgs.pgs(&["start", "acme"])?;
    ensure!(
        refused.code == 3 && refused.stderr.contains("volume"),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn kept_data_is_adopted_only_when_asked() -> Result<()> {
    let Some(pgs) = Installation::for_test("kept_data_is_adopted_only_when_asked") else {
        return Ok(());
    };
    let old = pgs.create("acme", &["--enable"])?;
    query(&pgs, "acme", "CREATE TABLE kept AS SELECT 43 AS answer")?;
    ensure!(pgs.pgs(&["remove", "acme", "--keep-data", "--yes"])?.code == 0);
    ensure!(pgs.list()?[0]["standing"] == "data_kept");
    let refused = pgs.pgs(&["create", "acme"])?;
    ensure!(
        refused.code == 4 && refused.stderr.contains("--adopt-data"),
        "{refused:?}"
    );
    let new = pgs.create("acme", &["--adopt-data"])?;
    ensure!(
        pgs.list()?[0]["access"] == "disabled",
        "a tenant starts with access off"
    );
    ensure!(query(&pgs, "acme", "SELECT answer FROM kept")? == "43");
    ensure!(pgs.connect("acme", "acme", &old).await.is_err());
    pgs.connect("acme", "acme", &new).await?;
    ensure!(pgs.pgs(&["remove", "acme", "--yes"])?.code == 0);
    ensure!(pgs.pgs(&["create", "acme", "--adopt-data"])?.code == 3);
    ensure!(pgs.in_docker()?.is_empty());
    Ok(())
}

#[test]
fn init_files_run_as_the_tenant_or_nothing_is_left() -> Result<()> {
    let Some(pgs) = Installation::for_test("init_files_run_as_the_tenant_or_nothing_is_left")
    else {
        return Ok(());
    };
    let mut good = tempfile::NamedTempFile::with_suffix(".sql")?;
    writeln!(
        good,
        "CREATE TABLE mine (i int);\nRESET ROLE;\nCREATE TABLE theirs (i int);"
    )?;
    let mut bad = tempfile::NamedTempFile::with_suffix(".sql")?;
    writeln!(bad, "CREATE TABLE more (i int);\nSELECT * FROM nowhere;")?;
    let (good, bad) = (good.path().to_string_lossy(), bad.path().to_string_lossy());
    let failed = pgs.pgs(&["create", "acme", "--init", &good, "--init", &bad])?;
    ensure!(
        failed.code == 17 && failed.stderr.contains("nowhere"),
        "{failed:?}"
    );
    ensure!(pgs.list()?.is_empty() && pgs.in_docker()?.is_empty());
    pgs.create("acme", &["--init", &good])?;
    let owners = "SELECT string_agg(tableowner, ',' ORDER BY tablename) FROM pg_tables \
                  WHERE schemaname = 'public'";
    ensure!(query(&pgs, "acme", owners)? == "acme,postgres");
    Ok(())
}

#[test]
fn a_stopped_container_that_docker_starts_finds_its_socket_directory() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_stopped_container_that_docker_starts") else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    let container = pgs.container("acme")?;
    docker(&["kill", &container])?;
    docker(&["start", &container])?;
    ensure!(
        pgs.pgs(&["start", "acme"])?.code == 0,
        "waits until it has recovered"
    );
    ensure!(query(&pgs, "acme", "SELECT 1")? == "1");
    Ok(())
}

#[test]
fn a_server_that_docker_has_started_again_can_be_started() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_server_that_docker_has_started_again") else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    let container = pgs.container("acme")?;
    let of = |field: &str| docker(&["inspect", "-f", field, &container]);
    // Not `docker kill`: Docker starts nothing again that it was told to end.
    let process = of("{{.State.Pid}}")?.trim().parse()?;
    kill(Pid::from_raw(process), Signal::SIGKILL)?;
    let begin = Instant::now();
    while of("{{.RestartCount}} {{.State.Health.Status}}")?.trim() != "1 healthy" {
        ensure!(begin.elapsed() < HEALTHY_WITHIN, "it does not come back");
        sleep(Duration::from_millis(200));
    }
    let started = pgs.pgs(&["start", "acme"])?;
    ensure!(started.code == 0, "{started:?}");
    ensure!(query(&pgs, "acme", "SELECT 1")? == "1");
    Ok(())
}
