//! The two PostgreSQL servers: a tenant of pgs, and a plain container whose port is published. Same
//! image, same bounds, same settings, same data.

use super::ground::{Ground, TENANT};
use super::options::Settings;
use crate::report::Step;
use crate::{container, process};
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// Memory of each container, as Docker and pgs both spell it: for the backends of the idle sessions
/// too.
const MEMORY: &str = "2g";

/// Set by ALTER SYSTEM in both servers. The data is in memory and nothing waits for a disk: what is
/// measured is the way to the server.
pub(super) const SERVER_SETTINGS: [(&str, &str); 8] = [
    ("max_connections", "300"),
    ("shared_buffers", "256MB"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("autovacuum", "off"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "8GB"),
];

/// Of the password's hash. With PostgreSQL's default of 4096, most of what a connection costs would
/// be the client's own hashing, and no difference between subjects would show.
pub(super) const SCRAM_ITERATIONS: u32 = 1;

/// What COPY IN sends goes here and is not kept.
pub(super) const SINK: &str = "sink";

/// The servers are there; they go with the [`Ground`].
pub(super) struct Servers {
    pub(super) password: String,
    /// What both servers keep of it; PgBouncer too, so that it can log in with what its client
    /// has proven.
    pub(super) verifier: String,
    /// Directory of the tenant's socket.
    pub(super) socket_directory: PathBuf,
    /// Port that Docker has published of the plain container.
    pub(super) published_port: u16,
    /// The plain container on Docker's bridge.
    pub(super) container_address: String,
    pub(super) version: String,
}

impl Servers {
    /// Makes both and fills both.
    pub(super) fn make(ground: &Ground, settings: &Settings, address: &str) -> Result<Self> {
        let password = random_password()?;
        let step = Step::new("tenant");
        step.doing("making it with `pgs create`");
        let verifier = make_tenant(ground, &settings.image, &password)?;
        step.done("there");
        let step = Step::new("plain container");
        step.doing("making it with `docker run`");
        let published_port = free_port()?;
        let container_address =
            make_plain(ground, &settings.image, &verifier, address, published_port)?;
        step.done(format_args!("port {published_port} published"));
        let mut servers = Self {
            password,
            verifier,
            socket_directory: ground.state_directory().join("sockets").join(TENANT),
            published_port,
            container_address,
            version: String::new(),
        };
        let step = Step::new("data");
        step.doing(format_args!("pgbench's tables, scale {}", settings.scale));
        servers.fill(
            &servers.socket_directory.display().to_string(),
            5432,
            settings,
        )?;
        servers.fill("127.0.0.1", published_port, settings)?;
        step.done("the same in both");
        servers.version = servers.ask("SHOW server_version")?;
        Ok(servers)
    }

    /// A client program with what it needs to connect as the tenant's role.
    pub(super) fn client(&self, program: &str, host: &str, port: u16) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-h", host, "-p", &port.to_string(), "-U", TENANT])
            .env("PGPASSWORD", &self.password)
            .env("PGDATABASE", TENANT)
            // Else libpq asks for encryption first, which not every subject would grant.
            .env("PGSSLMODE", "disable")
            .env("PGGSSENCMODE", "disable")
            .env("PGCONNECT_TIMEOUT", "10");
        command
    }

    /// One value from the tenant, over its own socket.
    pub(super) fn ask(&self, query: &str) -> Result<String> {
        let host = self.socket_directory.display().to_string();
        let mut psql = self.client("psql", &host, 5432);
        process::output(psql.args(["-XAtqc", query]))
    }

    fn fill(&self, host: &str, port: u16, settings: &Settings) -> Result<()> {
        let scale = settings.scale.to_string();
        let mut pgbench = self.client("pgbench", host, port);
        // Made by the server itself, not sent.
        process::output(pgbench.args(["-i", "-q", "-I", "dtGvp", "-s", &scale]))?;
        let table = format!("CREATE UNLOGGED TABLE {SINK} (line text)");
        process::output(self.client("psql", host, port).args(["-Xqc", &table]))?;
        Ok(())
    }
}

/// Gives the password's verifier.
fn make_tenant(ground: &Ground, image: &str, password: &str) -> Result<String> {
    let file = ground.path("password");
    let mut options = fs::OpenOptions::new();
    let mut opened = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)?;
    std::io::Write::write_all(&mut opened, password.as_bytes())?;
    let pgs = || ground.pgs("run");
    process::output(
        pgs()
            .args(["create", TENANT, "--enable", "--memory", MEMORY])
            .args(["--image", image, "--password-file"])
            .arg(&file),
    )?;
    let psql = || {
        let mut psql = pgs();
        psql.args(["psql", TENANT, "--superuser", "--"])
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
        psql
    };
    process::output(psql().args(alter_system()))?;
    let set = format!("SET scram_iterations = {SCRAM_ITERATIONS}");
    let change = format!("ALTER ROLE {TENANT} PASSWORD '{password}'");
    let show = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{TENANT}'");
    let verifier = process::output(psql().args(["-c", &set, "-c", &change, "-c", &show]))?;
    process::output(pgs().args(["restart", TENANT]))?;
    Ok(verifier)
}

/// Gives the container's address on the bridge.
fn make_plain(
    ground: &Ground,
    image: &str,
    verifier: &str,
    address: &str,
    port: u16,
) -> Result<String> {
    let name = ground.container();
    run_plain(ground, &name, image, address, port)?;
    container::wait_ready(&name)?;
    let psql = || {
        let mut psql = Command::new("docker");
        psql.args(["exec", "--user", "postgres", &name]).args([
            "psql",
            "-Xq",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        psql
    };
    process::output(psql().args(alter_system()))?;
    let role = format!("CREATE ROLE {TENANT} LOGIN CREATEDB CREATEROLE PASSWORD '{verifier}'");
    let database = format!("CREATE DATABASE {TENANT} OWNER {TENANT}");
    process::output(psql().args(["-c", &role, "-c", &database]))?;
    process::output(Command::new("docker").args(["restart", &name]))?;
    container::wait_ready(&name)?;
    let format = "{{.NetworkSettings.IPAddress}}";
    let found = process::output(Command::new("docker").args([
        "container",
        "inspect",
        "--format",
        format,
        &name,
    ]))?;
    if found.is_empty() {
        bail!("the plain container has no address on Docker's default bridge");
    }
    Ok(found)
}

/// Confined and authenticated as a tenant's container is.
fn run_plain(
    ground: &Ground,
    container: &str,
    image: &str,
    address: &str,
    port: u16,
) -> Result<()> {
    let cpus = thread::available_parallelism()?.get().min(2).to_string();
    let mut docker = Command::new("docker");
    docker
        .args(["run", "--detach", "--name", container])
        .args(["--memory", MEMORY, "--memory-swap", MEMORY, "--cpus", &cpus])
        .args(["--shm-size", "256m", "--pids-limit", "1024"])
        .args(["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
    for capability in ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"] {
        docker.args(["--cap-add", capability]);
    }
    for variable in [
        "POSTGRES_PASSWORD_FILE=/proc/sys/kernel/random/uuid",
        "POSTGRES_HOST_AUTH_METHOD=scram-sha-256",
        "POSTGRES_INITDB_ARGS=--auth-local=peer --auth-host=scram-sha-256",
    ] {
        docker.args(["--env", variable]);
    }
    for host in [address, "127.0.0.1"] {
        docker.args(["--publish", &format!("{host}:{port}:5432")]);
    }
    process::output(docker.arg(image))
        .map(drop)
        .with_context(|| format!("in {}", ground.directory().display()))
}

/// One `-c` each: ALTER SYSTEM does not run in the transaction that several in one would be.
fn alter_system() -> Vec<String> {
    SERVER_SETTINGS
        .iter()
        .flat_map(|(name, value)| {
            [
                "-c".to_owned(),
                format!("ALTER SYSTEM SET {name} = '{value}'"),
            ]
        })
        .collect()
}

fn random_password() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    Ok(fs::read_to_string(path)?.trim().replace('-', ""))
}

/// A port that nothing has on any address. Somebody may take it before it is used: then the run
/// ends with what the program says that wanted it.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("0.0.0.0", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
