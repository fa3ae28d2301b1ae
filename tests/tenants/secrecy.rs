//! Who gets in, and where no password is.

use std::fs;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use anyhow::ensure;
use pgs_tests::tenants::Installation;
use pgs_tests::tenants::docker;
use tokio_postgres::error::SqlState;

#[tokio::test]
async fn only_the_right_password_gets_in_over_the_socket() -> Result<()> {
    let Some(pgs) = Installation::for_test("only_the_right_password_gets_in_over_the_socket")
    else {
        return Ok(());
    };
    let password = pgs.create("acme", &[])?;
    let client = pgs.connect("acme", "acme", &password).await?;
    let row = client
        .query_one(
            "SELECT current_user::text, rolsuper, rolreplication FROM pg_roles \
                                WHERE rolname = current_user",
            &[],
        )
        .await?;
    ensure!(row.get::<_, String>(0) == "acme" && !row.get::<_, bool>(1) && !row.get::<_, bool>(2));
    for (user, given, expected) in [
        ("acme", "wrong", SqlState::INVALID_PASSWORD),
        ("nobody", "wrong", SqlState::INVALID_PASSWORD),
        (
            "postgres",
            "postgres",
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        ),
    ] {
        let Err(error) = pgs.connect("acme", user, given).await else {
            anyhow::bail!("{user} got in with {given:?}");
        };
        ensure!(error.code() == Some(&expected), "{user}: {error:?}");
    }
    let container = pgs.container("acme")?;
    let rules = docker(&[
        "exec",
        "-u",
        "postgres",
        &container,
        "sh",
        "-c",
        "cat $PGDATA/pg_hba.conf",
    ])?;
    ensure!(!rules.contains("trust"), "{rules}");
    let superuser = pgs.pgs(&[
        "psql",
        "acme",
        "--superuser",
        "--",
        "-Atc",
        "SELECT count(*) FROM pg_authid WHERE rolname = 'postgres' AND rolpassword IS NULL",
    ])?;
    ensure!(superuser.stdout.trim() == "1", "{superuser:?}");
    Ok(())
}

#[tokio::test]
async fn a_password_is_nowhere_but_with_its_owner() -> Result<()> {
    const SECRET: &str = "Zebra-Kumquat-77";
    let Some(pgs) = Installation::for_test("a_password_is_nowhere_but_with_its_owner") else {
        return Ok(());
    };
    let mut child = pgs.spawn(&["create", "acme", "--password", SECRET])?;
    // It is there until the process has begun to run; from then on it never is.
    let mut masked = false;
    while child.try_wait()?.is_none() {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", child.id()))?;
        ensure!(!(masked && line.contains(SECRET)), "it came back: {line:?}");
        masked |= line.contains(&format!("--password\0{}\0", "*".repeat(SECRET.len())));
        std::thread::sleep(Duration::from_millis(5));
    }
    ensure!(masked, "the command line was never masked");
    let output = child.wait_with_output()?;
    ensure!(output.status.success());
    ensure!(!String::from_utf8_lossy(&output.stdout).contains(SECRET));

    pgs.connect("acme", "acme", SECRET).await?;
    // A statement that fails with it in its text is the server's own log's business.
    let container = pgs.container("acme")?;
    let mut seen = docker(&["inspect", &container])?;
    seen += &docker(&["volume", "inspect", &container])?;
    seen += &docker(&["logs", &container])?;
    let process = docker(&["inspect", "-f", "{{.State.Pid}}", &container])?;
    seen += &fs::read_to_string(format!("/proc/{}/environ", process.trim()))?;
    for entry in fs::read_dir(pgs.state_directory())? {
        let path = entry?.path();
        if path.is_file() {
            seen += &String::from_utf8_lossy(&fs::read(path)?);
        }
    }
    ensure!(!seen.contains(SECRET));
    ensure!(
        !seen.contains("SCRAM-SHA-256$"),
        "the verifier is nobody's business either"
    );
    Ok(())
}

#[tokio::test]
async fn a_new_password_replaces_the_old_one() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_new_password_replaces_the_old_one") else {
        return Ok(());
    };
    let old = pgs.create("acme", &[])?;
    let printed = pgs.pgs(&["password", "acme"])?;
    ensure!(printed.code == 0, "{printed:?}");
    let new = printed.stdout.trim();
    ensure!(new != old && pgs.connect("acme", "acme", &old).await.is_err());
    pgs.connect("acme", "acme", new).await?;

    // Umlauts, a no-break space: prepared here as the client prepares them.
    let given = "sch\u{f6}n\u{a0}geheim";
    let mut command = pgs.command(&["password", "acme", "--password-file", "-"])?;
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "{given}")?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success() && output.stdout.is_empty());
    pgs.connect("acme", "acme", given).await?;
    ensure!(pgs.connect("acme", "acme", "schon geheim").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_container_has_no_more_than_it_needs() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_container_has_no_more_than_it_needs") else {
        return Ok(());
    };
    pgs.create("acme", &["--memory", "512m", "--cpus", "0.5"])?;
    let container = pgs.container("acme")?;
    let inspected: serde_json::Value = serde_json::from_str(&docker(&["inspect", &container])?)?;
    let host = &inspected[0]["HostConfig"];
    ensure!(
        host["NetworkMode"] == "none" && host["Privileged"] == false,
        "{host}"
    );
    ensure!(host["CapDrop"][0] == "ALL" && host["SecurityOpt"][0] == "no-new-privileges");
    ensure!(
        host["Memory"] == 512 << 20 && host["NanoCpus"] == 500_000_000,
        "{host}"
    );
    ensure!(
        host["PidsLimit"].as_i64() > Some(0) && host["LogConfig"]["Config"]["max-size"] == "10m"
    );
    ensure!(host["RestartPolicy"]["Name"] == "unless-stopped", "{host}");
    // What the kernel says of the server itself.
    let process = inspected[0]["State"]["Pid"].to_string();
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    ensure!(status.contains("CapEff:\t0000000000000000"), "{status}");
    ensure!(status.contains("NoNewPrivs:\t1"), "{status}");
    // Only root reaches the socket on the host.
    use std::os::unix::fs::MetadataExt;
    let parent = fs::metadata(pgs.state_directory().join("sockets"))?;
    ensure!(
        parent.mode() & 0o777 == 0o710 && parent.gid() == 0,
        "{:o}",
        parent.mode()
    );
    Ok(())
}

#[test]
fn certificates_are_the_routers_to_read_whatever_the_umask() -> Result<()> {
    let test = "certificates_are_the_routers_to_read_whatever_the_umask";
    let Some(pgs) = Installation::for_test(test) else {
        return Ok(());
    };
    // As for a router that has a user of its own.
    let tls = pgs.state_directory().join("tls");
    fs::create_dir_all(&tls)?;
    fs::set_permissions(&tls, Permissions::from_mode(0o2750))?;
    let makes = pgs.command(&["tls", "self-signed", "--name", "db.example.com"])?;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(makes.get_program())
        .args(makes.get_args())
        .envs(
            makes
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let made = shell.output()?;
    ensure!(made.status.success(), "{made:?}");
    let directory = tls.join("default");
    for (path, expected) in [
        (directory.clone(), 0o2750),
        (directory.join("privkey.pem"), 0o640),
        (directory.join("fullchain.pem"), 0o644),
    ] {
        let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
        ensure!(mode == expected, "{}: {mode:o}", path.display());
    }
    Ok(())
}
