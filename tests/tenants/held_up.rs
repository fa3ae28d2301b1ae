//! What a tenant's superuser can do to make a command of root's wait.

use std::io::BufRead;
use std::io::BufReader;
use std::process::Child;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use pgs_tests::tenants::Installation;
use pgs_tests::tenants::docker;
use pgs_tests::tenants::outcome;
use serde_json::Value;

/// `EXEC_DEADLINE` of `pgs_userspace::config::limits`.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a command takes besides, on a loaded machine.
const ALLOWANCE: Duration = Duration::from_secs(40);

/// How long what waits is held up: longer than the bound.
const HELD: Duration = Duration::from_secs(48);

const TRIGGER: &str = "\
    CREATE FUNCTION held() RETURNS event_trigger LANGUAGE plpgsql \
        AS 'BEGIN PERFORM pg_sleep(600); END'; \
    CREATE EVENT TRIGGER held ON login EXECUTE FUNCTION held(); \
    ALTER EVENT TRIGGER held ENABLE ALWAYS";

/// A session of the superuser's in the database where pgs's own commands log in.
fn superuser<'a>(tenant: &'a str, statements: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["psql", tenant, "--superuser", "--", "-XAtq"];
    arguments.extend(["-d", "postgres"]);
    for statement in statements {
        arguments.extend(["-c", statement]);
    }
    arguments
}

/// Lets every change of a role wait, for [`HELD`].
fn let_changing_roles_wait(pgs: &Installation, tenant: &str) -> Result<Child> {
    let sleep = format!("SELECT pg_sleep({})", HELD.as_secs());
    let lock = "LOCK TABLE pg_authid IN SHARE MODE";
    let statements = ["BEGIN", lock, "SELECT 'held'", &sleep];
    let mut child = pgs.spawn(&superuser(tenant, &statements))?;
    let stdout = child.stdout.take().context("no pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == "held", "{line:?}");
    Ok(child)
}

/// Makes a pipe of what the new `pg_hba.conf` is to be written to. Nobody reads from it.
fn let_writing_rules_wait(pgs: &Installation, tenant: &str) -> Result<String> {
    let container = pgs.container(tenant)?;
    let script = "echo $PGDATA/pg_hba.conf.new; mkfifo $PGDATA/pg_hba.conf.new";
    let pipe = docker(&["exec", "-u", "postgres", &container, "sh", "-c", script])?;
    Ok(pipe.trim().to_owned())
}

/// Gives `tenant` a server that ends TLS itself: `pgs start` then has more to tell it.
fn pass_tls_through(pgs: &Installation, tenant: &str) -> Result<()> {
    let made = pgs.pgs(&["tls", "self-signed", "--json"])?;
    let made: Value = serde_json::from_str(&made.stdout)?;
    let certificate = made["path"].as_str().context("no path")?;
    let key = certificate.replace("fullchain.pem", "privkey.pem");
    let pair = ["--certificate", certificate, "--key", &key];
    for arguments in [
        &[&["tls", "set", "--tenant", tenant][..], &pair].concat()[..],
        &["set", tenant, "tls=passthrough"],
        &["restart", tenant],
    ] {
        let done = pgs.pgs(arguments)?;
        ensure!(done.code == 0, "{arguments:?}: {done:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_login_trigger_that_sleeps_holds_up_no_command() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_login_trigger_that_sleeps_holds_up_no_command")
    else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    let made = pgs.pgs(&superuser("acme", &[TRIGGER]))?;
    ensure!(made.code == 0, "{made:?}");
    let begin = Instant::now();
    let changed = pgs.pgs(&["password", "acme"])?;
    ensure!(changed.code == 0, "{changed:?}");
    ensure!(begin.elapsed() < ALLOWANCE, "{:?}", begin.elapsed());
    pgs.connect("acme", "acme", changed.stdout.trim()).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_tenant_makes_wait_is_given_up() -> Result<()> {
    let Some(pgs) = Installation::for_test("what_a_tenant_makes_wait_is_given_up") else {
        return Ok(());
    };
    let old = pgs.create("ann", &[])?;
    pgs.create("bob", &[])?;
    pgs.create("cleo", &[])?;
    pass_tls_through(&pgs, "bob")?;
    let pipe = let_writing_rules_wait(&pgs, "bob")?;
    ensure!(pgs.pgs(&["stop", "cleo"])?.code == 0);
    let mut holder = let_changing_roles_wait(&pgs, "ann")?;
    let begin = Instant::now();
    let password = pgs.spawn(&["password", "ann"])?;
    let start = pgs.spawn(&["start", "bob", "cleo", "--json"])?;
    let password = outcome(&password.wait_with_output()?);
    let start = outcome(&start.wait_with_output()?);
    let took = begin.elapsed();
    for outcome in [&password, &start] {
        ensure!(outcome.code == 11, "{outcome:?}");
    }
    ensure!(took >= DEADLINE && took < HELD, "{took:?}");
    let (message, hint) = ("did not end in", "pgs restart <tenant>");
    ensure!(password.stderr.contains(message) && password.stderr.contains(hint));
    let answer: Value = serde_json::from_str(&start.stdout)?;
    let tenants = &answer["tenants"];
    ensure!(tenants[0]["error"]["kind"] == "unhealthy", "{answer}");
    ensure!(tenants[1]["state"] == "ready", "{answer}");
    // Given up is given up, also when nothing holds it up any more.
    holder.wait()?;
    pgs.connect("ann", "ann", &old).await?;
    ensure!(pgs.pgs(&["password", "ann"])?.code == 0);
    docker(&["exec", &pgs.container("bob")?, "rm", &pipe])?;
    let restarted = pgs.pgs(&["restart", "bob"])?;
    ensure!(restarted.code == 0, "{restarted:?}");
    Ok(())
}
