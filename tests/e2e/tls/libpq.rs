//! Real clients: `psql` as it is installed, and the libpq of PostgreSQL 18 inside psycopg.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::process::Finished;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;

use super::DOMAIN;
use super::Ground;
use super::TENANT;
use super::with_tls;

pub(super) const CLIENT_LIMIT: Duration = Duration::from_secs(60);
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// As libpq takes it; without the password, which goes by the environment.
pub(super) fn connection(ground: &Ground<'_>, host: &str, more: &str) -> String {
    let address = ground.router.address();
    let (ip, port) = (address.ip(), address.port());
    format!("host={host} hostaddr={ip} port={port} user={TENANT} dbname={TENANT} {more}")
}

pub(super) fn psql(ground: &Ground<'_>, host: &str, more: &str) -> anyhow::Result<Finished> {
    let mut psql = Command::new("psql");
    psql.env("PGPASSWORD", &ground.tenant.login().password)
        .args([
            "--no-psqlrc",
            "-At",
            "-c",
            r"\conninfo",
            "-c",
            "select 40 + 2",
        ])
        .arg(connection(ground, host, more));
    process::run(&mut psql, CLIENT_LIMIT)
}

pub(super) fn psql_in_every_sslmode(stage: &Stage) -> anyhow::Result<()> {
    if Command::new("psql").arg("--version").output().is_err() {
        return Skip::because("there is no `psql`");
    }
    with_tls(stage, &[], |ground| {
        let trusted = format!("sslrootcert={}", ground.issued.certificate.display());
        let other = ground.issue("localhost")?;
        let foreign = format!("sslrootcert={}", other.certificate.display());
        let tenant = format!("{TENANT}.{DOMAIN}");
        let encrypted = [
            ("localhost", "sslmode=prefer".to_owned()),
            ("localhost", "sslmode=require".to_owned()),
            ("localhost", "sslmode=require sslsni=0".to_owned()),
            (
                "localhost",
                "sslmode=require channel_binding=prefer".to_owned(),
            ),
            (
                "localhost",
                "sslmode=require ssl_max_protocol_version=TLSv1.2".to_owned(),
            ),
            ("localhost", format!("sslmode=verify-ca {trusted}")),
            ("localhost", format!("sslmode=verify-full {trusted}")),
            (&tenant, format!("sslmode=verify-full {trusted}")),
        ];
        for (host, more) in &encrypted {
            let printed = psql(ground, host, more)?.success()?;
            ensure!(printed.contains("SSL connection"), "{more}: {printed}");
            ensure!(printed.ends_with("42\n"), "{more}: {printed}");
        }
        for more in ["sslmode=disable", "sslmode=allow"] {
            let printed = psql(ground, "localhost", more)?.success()?;
            ensure!(!printed.contains("SSL connection"), "{more}: {printed}");
            ensure!(printed.ends_with("42\n"), "{more}: {printed}");
        }
        let refused = [
            (
                "elsewhere.test",
                format!("sslmode=verify-full {trusted}"),
                "does not match",
            ),
            (
                "localhost",
                format!("sslmode=verify-full {foreign}"),
                "certificate verify failed",
            ),
            // The server is not asked for a channel that ends here.
            (
                "localhost",
                "sslmode=require channel_binding=require".to_owned(),
                "channel binding",
            ),
        ];
        for (host, more, why) in &refused {
            let finished = psql(ground, host, more)?;
            ensure!(!finished.status.success(), "{more} was let in");
            ensure!(finished.stderr.contains(why), "{more}: {}", finished.stderr);
        }
        Ok(())
    })
}

/// Prints what each way of connecting led to.
const SCRIPT: &str = r#"
import sys, threading, time, psycopg
for more in sys.argv[2:]:
    with psycopg.connect(sys.argv[1] + " " + more) as connection:
        assert connection.execute("select 40 + 2").fetchone() == (42,)
        threading.Timer(0.3, connection.cancel_safe).start()
        begun = time.monotonic()
        try:
            connection.execute("select pg_sleep(20)")
            ended = "not cancelled"
        except psycopg.errors.QueryCanceled:
            ended = "cancelled" if time.monotonic() - begun < 5 else "cancelled late"
        print("encrypted" if connection.pgconn.ssl_in_use else "in the clear", ended)
"#;

pub(super) fn libpq_18_direct_and_cancel(stage: &Stage) -> anyhow::Result<()> {
    let python = python()?;
    with_tls(stage, &[], |ground| {
        let verified = format!(
            "sslmode=verify-full sslrootcert={}",
            ground.issued.certificate.display()
        );
        let ways = [
            ("sslmode=disable".to_owned(), "in the clear"),
            ("sslmode=prefer gssencmode=prefer".to_owned(), "encrypted"),
            ("sslmode=require".to_owned(), "encrypted"),
            (verified.clone(), "encrypted"),
            (format!("{verified} sslnegotiation=direct"), "encrypted"),
            (
                "sslmode=require max_protocol_version=latest".to_owned(),
                "encrypted",
            ),
            (
                format!("{verified} sslnegotiation=direct max_protocol_version=3.2"),
                "encrypted",
            ),
        ];
        let mut script = Command::new(&python);
        script
            .env("PGPASSWORD", &ground.tenant.login().password)
            .args(["-c", SCRIPT, &connection(ground, "localhost", "")])
            .args(ways.iter().map(|(way, _)| OsStr::new(way)));
        let printed = process::run(&mut script, CLIENT_LIMIT)?.success()?;
        let expected: String = ways
            .iter()
            .map(|(_, how)| format!("{how} cancelled\n"))
            .collect();
        ensure!(printed == expected, "{printed}");
        let status = ground.router.status()?;
        let cancels = &status["counters"]["cancels_routed"];
        ensure!(cancels == ways.len(), "{cancels} cancels arrived");
        Ok(())
    })
}

/// An interpreter with psycopg and the libpq in it: `PGS_TEST_PYTHON`, or one made here.
pub(super) fn python() -> anyhow::Result<PathBuf> {
    if let Some(python) = env::var_os("PGS_TEST_PYTHON") {
        return Ok(PathBuf::from(python));
    }
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tests-python");
    let python = environment.join("bin/python");
    let has_it = || {
        let mut import = Command::new(&python);
        import.args([
            "-c",
            "import psycopg; assert psycopg.pq.version() >= 180000",
        ]);
        python.exists()
            && process::run(&mut import, CLIENT_LIMIT).is_ok_and(|done| done.status.success())
    };
    if has_it() {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&environment);
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "psycopg[binary]"]);
    for command in [&mut make, &mut install] {
        let done = process::run(command, INSTALL_LIMIT).and_then(Finished::success);
        if let Err(error) = done {
            return Skip::because(format!("psycopg cannot be installed: {error:#}"));
        }
    }
    if has_it() {
        return Ok(python);
    }
    Skip::because("psycopg comes with a libpq older than 18")
}
