//! A replication connection: pg_basebackup through the port.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use serde_json::Value;

use crate::Named;
use crate::queries::client;

pub(crate) const SCENARIOS: &[Named] = &[("pg_basebackup_and_verify", pg_basebackup_and_verify)];

const LIMIT: Duration = Duration::from_secs(120);

/// pg_basebackup does not talk to a server newer than itself, so the server's own is used: from the
/// image of its container, on the host's network.
fn pg_basebackup_and_verify(stage: &Stage) -> anyhow::Result<()> {
    let (router, login) = (stage.router()?, stage.chief()?);
    let mut wire = stage.log_in(login)?;
    wire.query("create table if not exists kept as select i from generate_series(1, 100000) i")?;
    let status = router.pgs_json(&["status", &login.user])?;
    let image = find(&status, "image").context("`pgs status --json` names no image")?;
    let target = stage.installation()?.scratch("backup");
    fs::create_dir_all(&target)?;
    let mut backup = in_image(stage, &image, &target)?;
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
    let mut verify = in_image(stage, &image, &target)?;
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

fn in_image(stage: &Stage, image: &str, target: &Path) -> anyhow::Result<Command> {
    let mut command = client(stage, "docker", stage.chief()?)?;
    command.args(["run", "--rm", "--network", "host", "--entrypoint", "env"]);
    for variable in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD"] {
        // Without a value docker takes it from its own environment.
        command.args(["--env", variable]);
    }
    command.args(["--volume", &format!("{}:/backup", target.display()), image]);
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
