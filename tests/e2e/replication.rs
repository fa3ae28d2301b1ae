//! Replication connections: PostgreSQL's own programs for it, through the port.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;
use serde_json::Value;
use sha2::Digest as _;
use sha2::Sha256;

use crate::Named;
use crate::queries::client;

pub(crate) const SCENARIOS: &[Named] = &[
    ("pg_basebackup_and_verify", pg_basebackup_and_verify),
    ("pg_receivewal_of_a_segment", pg_receivewal_of_a_segment),
    ("pg_recvlogical_of_rows", pg_recvlogical_of_rows),
];

const LIMIT: Duration = Duration::from_secs(120);

/// For a program to be connected, from a container that is started for it.
const CONNECTED: Duration = Duration::from_secs(30);

/// Rows in one transaction, and what is in each.
const ROWS: u64 = 100;
const TEXT_BYTES: usize = 1_000;

/// More transactions than it takes to get past the end of what is received.
const TRANSACTIONS_MAX: u64 = 200;

/// pg_basebackup does not talk to a server newer than itself, so the server's own is used: from the
/// image of its container, on the host's network.
fn pg_basebackup_and_verify(stage: &Stage) -> anyhow::Result<()> {
    let login = stage.chief()?;
    let mut wire = stage.log_in(login)?;
    wire.query("create table if not exists kept as select i from generate_series(1, 100000) i")?;
    let target = stage.installation()?.scratch("backup");
    fs::create_dir_all(&target)?;
    let mut backup = in_image(stage, login, &target)?;
    backup.args([
        "pg_basebackup",
        "-D",
        "/backup/data",
        "-X",
        "stream",
        "-c",
        "fast",
        "-v",
    ]);
    let said = process::run(&mut backup, LIMIT)?;
    ensure!(said.status.success(), "{said:?}");
    ensure!(said.stderr.contains("base backup completed"), "{said:?}");
    let mut verify = in_image(stage, login, &target)?;
    verify.args(["pg_verifybackup", "-e", "/backup/data"]);
    let printed = process::run(&mut verify, LIMIT)?.success()?;
    ensure!(
        printed.contains("backup successfully verified"),
        "{printed}"
    );
    let version = fs::read_to_string(target.join("data/PG_VERSION"))?;
    ensure!(
        wire.query_value("show server_version")?
            .starts_with(version.trim())
    );
    Ok(())
}

/// A segment that is written while pg_receivewal listens is, byte for byte, the server's.
fn pg_receivewal_of_a_segment(stage: &Stage) -> anyhow::Result<()> {
    let login = stage.chief()?;
    let mut wire = stage.log_in(login)?;
    wire.query("create table if not exists logged (i bigint, text text)")?;
    let target = stage.installation()?.scratch("wal");
    fs::create_dir_all(&target)?;
    let program = ["pg_receivewal", "-D", "/backup", "-S", "wal_slot"];
    let mut create = in_image(stage, login, &target)?;
    process::run(create.args(program).arg("--create-slot"), LIMIT)?.success()?;
    // Behind the beginning of the segment that follows.
    let end = wire.query_value(
        "select '0/0'::pg_lsn + 10000 + (1 + trunc((pg_current_wal_lsn() - '0/0'::pg_lsn) / size)) \
         * size from (select pg_size_bytes(current_setting('wal_segment_size'))) segment (size)",
    )?;
    let mut receive = in_image(stage, login, &target)?;
    receive.args(program).args(["--no-loop", "--endpos", &end]);
    let segment = beside(&mut receive, || {
        until_active(&mut wire, "wal_slot")?;
        insert(&mut wire, "logged", 0)?;
        let segment = wire.query_value("select pg_walfile_name(pg_current_wal_lsn())")?;
        wire.query("select pg_switch_wal()")?;
        insert_beyond(&mut wire, "logged", &end)?;
        Ok(segment)
    })?;
    let received = fs::read(target.join(&segment)).context("the segment was not received")?;
    let hash = wire.query_value(&format!(
        "select encode(sha256(pg_read_binary_file('pg_wal/{segment}')), 'hex')"
    ))?;
    let received_hash: String = Sha256::digest(&received)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ensure!(received_hash == hash, "{} other bytes", received.len());
    wire.query("select pg_drop_replication_slot('wal_slot')")?;
    Ok(())
}

/// Rows that are inserted while pg_recvlogical listens arrive, each once and in order.
fn pg_recvlogical_of_rows(stage: &Stage) -> anyhow::Result<()> {
    let (installation, router) = (stage.installation()?, stage.router()?);
    let tenant = installation.create_tenant_with("decoded", &["--enable", "--superuser"])?;
    let login = tenant.login();
    let set = stage
        .log_in(login)?
        .query("alter system set wal_level = logical")?;
    ensure!(set.iter().all(|said| said.kind != b'E'), "{set:?}");
    router.pgs(&["restart", tenant.id()])?;
    let mut wire = stage.log_in(login)?;
    wire.query("create table decoded (i bigint, text text)")?;
    let target = installation.scratch("decoded");
    fs::create_dir_all(&target)?;
    let program = ["pg_recvlogical", "-S", "row_slot", "-d", &login.database];
    let mut create = in_image(stage, login, &target)?;
    create
        .args(program)
        .args(["--create-slot", "-P", "test_decoding"]);
    process::run(&mut create, LIMIT)?.success()?;
    let end = wire.query_value("select pg_current_wal_lsn() + 1000000")?;
    let mut receive = in_image(stage, login, &target)?;
    receive
        .args(program)
        .args(["--start", "--no-loop", "-f", "/backup/rows"]);
    receive.args([
        "--endpos",
        &end,
        "-o",
        "include-xids=0",
        "-o",
        "skip-empty-xacts=1",
    ]);
    let inserted = beside(&mut receive, || {
        until_active(&mut wire, "row_slot")?;
        insert_beyond(&mut wire, "decoded", &end)
    })?;
    let rows = fs::read_to_string(target.join("rows"))?;
    let rows: Vec<_> = rows
        .lines()
        .filter(|line| line.starts_with("table"))
        .collect();
    let text = "x".repeat(TEXT_BYTES);
    for (number, row) in (0..).zip(&rows) {
        let expected =
            format!("table public.decoded: INSERT: i[bigint]:{number} text[text]:'{text}'");
        ensure!(*row == expected, "{row}, not {expected}");
    }
    // What was inserted behind the end is not asked for: less than two transactions.
    let fewest = inserted - 2 * ROWS;
    ensure!(
        rows.len() as u64 >= fewest,
        "{} of {fewest} rows",
        rows.len()
    );
    Ok(())
}

/// Runs a program to its end and does something beside it, which is to make it end.
fn beside<T>(command: &mut Command, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let program = scope.spawn(|| process::run(command, LIMIT)?.success());
        let done = work();
        let ended = program.join();
        let said = ended.map_err(|_| anyhow::anyhow!("the program's thread panicked"))?;
        done.with_context(|| format!("beside a program that said {said:?}"))
            .and_then(|done| said.map(|_| done))
    })
}

fn until_active(wire: &mut Wire, slot: &str) -> anyhow::Result<()> {
    let sql = format!("select active from pg_replication_slots where slot_name = '{slot}'");
    process::eventually("the slot is active", CONNECTED, || {
        Ok((wire.query_value(&sql)? == "t").then_some(()))
    })
}

/// A transaction with rows of these numbers and those that follow.
fn insert(wire: &mut Wire, table: &str, first: u64) -> anyhow::Result<()> {
    let last = first + ROWS - 1;
    let said = wire.query(&format!(
        "insert into {table} select i, repeat('x', {TEXT_BYTES}) \
         from generate_series({first}, {last}) i"
    ))?;
    ensure!(said.iter().all(|said| said.kind != b'E'), "{said:?}");
    Ok(())
}

/// Transactions until the log has gone beyond this place by one of them; how many rows that were.
fn insert_beyond(wire: &mut Wire, table: &str, end: &str) -> anyhow::Result<u64> {
    let margin = ROWS * TEXT_BYTES as u64;
    let is_beyond = format!("select pg_current_wal_flush_lsn() > '{end}'::pg_lsn + {margin}");
    for number in 0..TRANSACTIONS_MAX {
        insert(wire, table, number * ROWS)?;
        if wire.query_value(&is_beyond)? == "t" {
            return Ok((number + 1) * ROWS);
        }
    }
    anyhow::bail!("{TRANSACTIONS_MAX} transactions do not reach {end}")
}

fn in_image(stage: &Stage, login: &Login, target: &Path) -> anyhow::Result<Command> {
    let status = stage.router()?.pgs_json(&["status", &login.user])?;
    let image = find(&status, "image").context("`pgs status --json` names no image")?;
    let mut command = client(stage, "docker", login)?;
    command.args(["run", "--rm", "--network", "host", "--entrypoint", "env"]);
    for variable in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD"] {
        // Without a value docker takes it from its own environment.
        command.args(["--env", variable]);
    }
    command.args(["--volume", &format!("{}:/backup", target.display()), &image]);
    // The path of the server's programs is not in every image's PATH.
    let path = "PATH=/usr/lib/postgresql/18/bin:/usr/local/bin:/usr/bin:/bin";
    command.arg(path);
    Ok(command)
}

/// The first string under this name, however deep.
fn find(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(fields) => match fields.get(name).and_then(Value::as_str) {
            Some(found) => Some(found.to_owned()),
            None => fields.values().find_map(|value| find(value, name)),
        },
        Value::Array(values) => values.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}
