//! Ordinary clients doing ordinary things.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use pgs_tests::driver;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use serde_json::Value;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("psql_gets_its_answer", psql_gets_its_answer),
    ("prepared_statements", prepared_statements),
    (
        "an_error_leaves_the_session_usable",
        an_error_leaves_the_session_usable,
    ),
    (
        "the_session_is_listed_with_its_path_and_bytes",
        the_session_is_listed,
    ),
    ("pgbench_without_a_failed_transaction", pgbench),
];

const LIMIT: Duration = Duration::from_secs(60);

/// A client program, told where to connect.
pub(crate) fn client(stage: &Stage, program: &str, login: &Login) -> anyhow::Result<Command> {
    let address = stage.router()?.address();
    let mut command = Command::new(program);
    command
        .env("PGHOST", address.ip().to_string())
        .env("PGPORT", address.port().to_string())
        .env("PGUSER", &login.user)
        .env("PGDATABASE", &login.database)
        .env("PGPASSWORD", &login.password)
        .env("PGCONNECT_TIMEOUT", "20");
    Ok(command)
}

/// Skips where a client program is not installed.
pub(crate) fn require(program: &str) -> anyhow::Result<()> {
    match Command::new(program).arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) => Skip::because(format!("`{program}` is not installed: {error}")),
    }
}

fn psql_gets_its_answer(stage: &Stage) -> anyhow::Result<()> {
    require("psql")?;
    for login in [stage.alpha()?, stage.beta()?] {
        let mut psql = client(stage, "psql", login)?;
        psql.args([
            "-XAt",
            "-c",
            "select 6 * 7, current_user, current_database()",
        ]);
        let printed = process::run(&mut psql, LIMIT)?.success()?;
        let expected = format!("42|{0}|{0}\n", login.user);
        ensure!(printed == expected, "printed {printed:?}");
    }
    Ok(())
}

fn prepared_statements(stage: &Stage) -> anyhow::Result<()> {
    let (address, login) = (stage.router()?.address(), stage.alpha()?);
    driver::block_on(LIMIT, async {
        let session = driver::connect(address, login).await?;
        let sum = session
            .client
            .prepare("select $1::int8 + $2::int8, $3::text")
            .await?;
        for i in 0..500_i64 {
            let text = "ä".repeat(usize::try_from(i)?);
            let row = session.client.query_one(&sum, &[&i, &1_i64, &text]).await?;
            ensure!(
                row.get::<_, i64>(0) == i + 1 && row.get::<_, &str>(1) == text,
                "at {i}"
            );
        }
        // Several at once: the driver sends them before the first is answered.
        let runs = (0..100_i64).map(|i| {
            let (client, sum) = (&session.client, &sum);
            async move {
                client
                    .query_one(sum, &[&i, &i, &"x"])
                    .await
                    .map(|row| row.get(0))
            }
        });
        let sums: Vec<i64> = futures_util::future::try_join_all(runs).await?;
        ensure!(
            sums == (0..100).map(|i| 2 * i).collect::<Vec<_>>(),
            "{sums:?}"
        );
        Ok(())
    })
}

fn an_error_leaves_the_session_usable(stage: &Stage) -> anyhow::Result<()> {
    let mut wire = stage.log_in(stage.alpha()?)?;
    let answered = wire.query("select 1 / 0")?;
    let states: Vec<_> = answered.iter().filter_map(Message::sqlstate).collect();
    ensure!(states == ["22012"], "{states:?}");
    ensure!(wire.query_value("select 7")? == "7");
    Ok(())
}

/// Small turns go through the kernel in both directions; a large one comes to the router.
fn the_session_is_listed(stage: &Stage) -> anyhow::Result<()> {
    const SMALL_TURNS: u64 = 200;
    const SMALL_BYTES: u64 = 1_000;
    const LARGE_BYTES: u64 = 3_000_000;
    let (router, login) = (stage.router()?, stage.alpha()?);
    let mut wire = stage.log_in(login)?;
    let process_id: u64 = wire.query_value("select pg_backend_pid()")?.parse()?;
    let found = |session: &Value| session["backend_pid"].as_u64() == Some(process_id);
    let seen = |bytes: u64| {
        process::eventually("the session shows its bytes", LIMIT / 10, || {
            let session = router.sessions(&login.user)?.into_iter().find(found);
            let counted = |session: &Value| session["bytes_to_client"].as_u64() > Some(bytes);
            Ok(session.filter(counted))
        })
    };
    for _ in 0..SMALL_TURNS {
        wire.query(&format!("select repeat('x', {SMALL_BYTES})"))?;
    }
    let session = seen(SMALL_TURNS * SMALL_BYTES)?;
    ensure!(
        session["path"] == stage.path().as_str(),
        "not on its path: {session}"
    );
    let in_kernel = session["bytes_in_kernel"].as_u64();
    if stage.path() == DataPath::Kernel {
        ensure!(
            in_kernel > Some(SMALL_TURNS * SMALL_BYTES),
            "small turns are not redirected: {session}"
        );
    } else {
        ensure!(in_kernel == Some(0), "redirected by the relay: {session}");
    }
    let of_tenant = router.status()?["kernel_bytes"][&login.user]["to_client"].as_u64();
    ensure!(
        stage.path() == DataPath::Relay || of_tenant > Some(SMALL_TURNS * SMALL_BYTES),
        "the tenant's account has {of_tenant:?} bytes"
    );
    wire.query(&format!("select repeat('x', {LARGE_BYTES})"))?;
    let session = seen(SMALL_TURNS * SMALL_BYTES + LARGE_BYTES)?;
    ensure!(
        session["diversions"].as_u64() >= Some(u64::from(stage.path() == DataPath::Kernel)),
        "a large turn does not come to the router: {session}"
    );
    drop(wire);
    process::eventually("the session is gone from the list", LIMIT / 10, || {
        let sessions = router.sessions(&login.user)?;
        Ok((!sessions.iter().any(found)).then_some(()))
    })
}

fn pgbench(stage: &Stage) -> anyhow::Result<()> {
    require("pgbench")?;
    let login = stage.beta()?;
    let mut initialise = client(stage, "pgbench", login)?;
    initialise.args(["-i", "-s", "1", "-q"]);
    process::run(&mut initialise, LIMIT)?.success()?;
    let runs: [&[&str]; 2] = [&["-S", "-M", "prepared"], &["-N", "-M", "extended"]];
    for arguments in runs {
        let mut bench = client(stage, "pgbench", login)?;
        bench
            .args(["-n", "-c", "8", "-j", "2", "-T", "2"])
            .args(arguments);
        let printed = process::run(&mut bench, LIMIT)?.success()?;
        ensure!(
            printed.contains("number of failed transactions: 0 (0.000%)"),
            "{arguments:?}: {printed}"
        );
    }
    Ok(())
}
