//! Real clients whose TLS a tenant's own server ends.

use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::stage::Stage;

use super::DOMAIN;
use super::Ground;
use super::TENANT;
use super::libpq::CLIENT_LIMIT;
use super::libpq::connection;
use super::libpq::psql;
use super::libpq::python;
use super::passthrough::pass_through;
use super::with_tls;

/// Cancels a query over TLS, then one in the clear, as clients with a libpq before 17 do.
const SCRIPT: &str = r#"
import sys, threading, time, psycopg
def outcome(connection, cancel, seconds):
    threading.Timer(0.3, cancel).start()
    try:
        connection.execute(f"select pg_sleep({seconds})")
        return "not cancelled"
    except psycopg.errors.QueryCanceled:
        return "cancelled"
for more in sys.argv[2:]:
    with psycopg.connect(sys.argv[1] + " " + more) as connection:
        tls = connection.execute(
            "select version from pg_stat_ssl where pid = pg_backend_pid()").fetchone()[0]
        print(tls, outcome(connection, connection.cancel_safe, 20))
        connection.rollback()
        print("in the clear", outcome(connection, connection.cancel, 2))
"#;

/// Connects until there is no room, says who has said so, and cancels a query by one more
/// connection.
const FULL_SCRIPT: &str = r#"
import sys, threading, psycopg
def cancel(connection):
    try:
        connection.cancel_safe(timeout=5)
    except psycopg.Error:
        pass
connections = []
try:
    while True:
        connections.append(psycopg.connect(sys.argv[1]))
except psycopg.OperationalError as error:
    print("the server" if "remaining connection slots" in str(error) else
          "pgs" if "too many connections for tenant" in str(error) else error)
threading.Timer(0.3, cancel, [connections[0]]).start()
try:
    connections[0].execute("select pg_sleep(3)")
    print("not cancelled")
except psycopg.errors.QueryCanceled:
    print("cancelled")
"#;

/// Which is why docs/tls.md recommends to let the server be the one that refuses.
pub(super) fn cancels_where_there_is_no_room(stage: &Stage) -> anyhow::Result<()> {
    let python = python()?;
    with_tls(stage, &[], |ground| {
        let few = "alter system set max_connections = 6";
        let psql = ["psql", TENANT, "--superuser", "--", "-Xc", few];
        ground.router.pgs(&psql)?;
        // Starts the server again.
        pass_through(ground.installation)?;
        let host = format!("{TENANT}.{DOMAIN}");
        let connection = connection(ground, &host, "sslmode=require");
        let fill = || -> anyhow::Result<String> {
            let mut script = Command::new(&python);
            script
                .env("PGPASSWORD", &ground.tenant.login().password)
                .args(["-c", FULL_SCRIPT, &connection]);
            process::run(&mut script, CLIENT_LIMIT)?.success()
        };
        let printed = fill()?;
        ensure!(printed == "the server\ncancelled\n", "{printed}");
        ground.router.pgs(&["set", TENANT, "connections_max=2"])?;
        let printed = fill()?;
        ensure!(printed == "pgs\nnot cancelled\n", "{printed}");
        Ok(())
    })
}

pub(super) fn channel_binding_and_cancel(stage: &Stage) -> anyhow::Result<()> {
    let python = python()?;
    with_tls(stage, &[], |ground| {
        let own = pass_through(ground.installation)?;
        let host = format!("{TENANT}.{DOMAIN}");
        let verified = format!(
            "sslmode=verify-full sslrootcert={}",
            own.certificate.display()
        );
        let bound = format!("{verified} channel_binding=require");
        // Psql itself, with the libpq that is installed.
        for more in ["sslmode=require", &verified, &bound] {
            let printed = psql(ground, &host, more)?.success()?;
            ensure!(printed.contains("SSL connection"), "{more}: {printed}");
            ensure!(printed.ends_with("42\n"), "{more}: {printed}");
        }
        let ours = ground.issued.certificate.display();
        let refused = [
            (
                format!("sslmode=verify-full sslrootcert={ours}"),
                "certificate verify failed",
            ),
            ("sslmode=disable".to_owned(), "itself is required"),
            ("sslmode=require sslsni=0".to_owned(), "itself is required"),
        ];
        for (more, why) in &refused {
            let finished = psql(ground, &host, more)?;
            ensure!(!finished.status.success(), "{more} was let in");
            ensure!(finished.stderr.contains(why), "{more}: {}", finished.stderr);
        }
        by_python(ground, &python, &host, &bound).context("psycopg")
    })
}

fn by_python(
    ground: &Ground<'_>,
    python: &std::path::Path,
    host: &str,
    bound: &str,
) -> anyhow::Result<()> {
    let ways = [
        bound.to_owned(),
        format!("{bound} sslnegotiation=direct"),
        format!("{bound} max_protocol_version=3.2"),
        format!("{bound} ssl_max_protocol_version=TLSv1.2"),
    ];
    let mut script = Command::new(python);
    script
        .env("PGPASSWORD", &ground.tenant.login().password)
        .args(["-c", SCRIPT, &connection(ground, host, "")])
        .args(&ways);
    let printed = process::run(&mut script, CLIENT_LIMIT)?.success()?;
    let expected: String = ["TLSv1.3", "TLSv1.3", "TLSv1.3", "TLSv1.2"]
        .iter()
        .map(|version| format!("{version} cancelled\nin the clear not cancelled\n"))
        .collect();
    ensure!(printed == expected, "{printed}");
    let counters = &ground.router.status()?["counters"];
    // One session and one cancel of each way; none of their keys was seen on the way.
    ensure!(counters["cancels_routed"] == 0, "{counters}");
    ensure!(counters["cancels_unknown"] == ways.len(), "{counters}");
    ensure!(
        counters["tls_handshakes"].as_u64() < Some(ways.len() as u64),
        "{counters}"
    );
    Ok(())
}
