//! An installation of pgs for one test: the real binary, the real Docker, directories of its own.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;
use tokio_postgres::Config;
use tokio_postgres::NoTls;

/// Image that the tests make tenants from; without it nothing is tested.
const IMAGE_VARIABLE: &str = "PGS_IMAGE";

/// Of coreutils' `env`, from 8.31 on.
const DEFAULT_SIGNALS: &str = "--default-signal=INT,HUP,TERM";

/// One installation. Its tenants go when it does.
#[derive(Debug)]
pub struct Installation {
    root: TempDir,
    image: String,
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Installation {
    /// A new one, or none, and why on standard error, where this machine cannot run tenants.
    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows why a test was skipped"
    )]
    pub fn for_test(test: &str) -> Option<Self> {
        match Self::prepare() {
            Ok(installation) => Some(installation),
            Err(reason) => {
                eprintln!("skipped: {test}: {reason:#}");
                None
            }
        }
    }

    fn prepare() -> Result<Self> {
        let image = env::var(IMAGE_VARIABLE).context("PGS_IMAGE is not set")?;
        let docker = Command::new("docker")
            .args(["image", "inspect", &image])
            .output();
        let docker = docker.context("there is no `docker` command")?;
        let said = String::from_utf8_lossy(&docker.stderr).trim().to_owned();
        ensure!(
            docker.status.success(),
            "docker has no image `{image}`: {said}"
        );
        let binary = binary()?;
        ensure!(
            binary.exists(),
            "there is no `{}`: build it first",
            binary.display()
        );
        Ok(Self {
            root: tempfile::tempdir()?,
            image,
        })
    }

    /// Its state directory.
    pub fn state_directory(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// Its run directory.
    pub fn run_directory(&self) -> PathBuf {
        self.root.path().join("run")
    }

    /// Directory of a tenant's server's socket.
    pub fn socket_directory(&self, tenant: &str) -> PathBuf {
        self.state_directory().join("sockets").join(tenant)
    }

    /// `pgs` with these arguments, its streams piped, not started yet. No signal is ignored in it,
    /// as one may be here, where the tests were started by `nohup` or in the background.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let mut command = Command::new("env");
        command
            .arg(DEFAULT_SIGNALS)
            .arg(binary()?)
            .args(arguments)
            .env("PGS_STATE_DIR", self.state_directory())
            .env("PGS_RUN_DIR", self.run_directory())
            .env(IMAGE_VARIABLE, &self.image)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Runs `pgs` to its end.
    pub fn pgs<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Outcome> {
        Ok(outcome(&self.command(arguments)?.output()?))
    }

    /// Starts `pgs`.
    pub fn spawn<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Child> {
        Ok(self.command(arguments)?.spawn()?)
    }

    /// Creates a tenant with access off and gives its password.
    pub fn create(&self, tenant: &str, more: &[&str]) -> Result<String> {
        let mut arguments = vec!["create", tenant, "--json"];
        arguments.extend(more);
        let outcome = self.pgs(&arguments)?;
        ensure!(outcome.code == 0, "create {tenant}: {outcome:?}");
        let answer: Value = serde_json::from_str(&outcome.stdout)?;
        Ok(answer["password"].as_str().unwrap_or_default().to_owned())
    }

    /// `list --json`, tenant by tenant.
    pub fn list(&self) -> Result<Vec<Value>> {
        let outcome = self.pgs(&["list", "--json"])?;
        ensure!(outcome.code == 0, "list: {outcome:?}");
        let answer: Value = serde_json::from_str(&outcome.stdout)?;
        Ok(answer["tenants"].as_array().cloned().unwrap_or_default())
    }

    /// Logs in over the tenant's own socket, as the router would.
    pub async fn connect(
        &self,
        tenant: &str,
        user: &str,
        password: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config
            .host_path(self.socket_directory(tenant))
            .user(user)
            .dbname(tenant);
        let (client, connection) = config.password(password).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Name of a tenant's container and volume.
    pub fn container(&self, tenant: &str) -> Result<String> {
        let found = docker(&[
            "ps",
            "-a",
            "--format",
            "{{.Names}}",
            "--filter",
            &self.filter()?,
        ])?;
        let suffix = format!("-{tenant}");
        let name = found.lines().find(|name| name.ends_with(&suffix));
        Ok(name.context("no such container")?.to_owned())
    }

    /// Names of all containers and volumes of this installation, whatever the registry says.
    pub fn in_docker(&self) -> Result<Vec<String>> {
        let filter = self.filter()?;
        let containers = docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter])?;
        let volumes = docker(&["volume", "ls", "--format", "{{.Name}}", "--filter", &filter])?;
        Ok(containers
            .lines()
            .chain(volumes.lines())
            .map(str::to_owned)
            .collect())
    }

    fn filter(&self) -> Result<String> {
        let state = self.state_directory().canonicalize()?;
        Ok(format!("label=dev.pgs.state-dir={}", state.display()))
    }
}

impl Drop for Installation {
    #[expect(
        clippy::print_stderr,
        reason = "a destructor has no other way to say it"
    )]
    fn drop(&mut self) {
        for entry in self.list().unwrap_or_default() {
            let tenant = entry["tenant"].as_str().unwrap_or_default();
            match self.pgs(&["remove", tenant, "--yes"]) {
                Ok(outcome) if outcome.code == 0 => {}
                other => eprintln!("could not remove `{tenant}`: {other:?}"),
            }
        }
    }
}

/// Runs the docker client to its end and gives what it printed.
pub fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(arguments).output()?;
    let outcome = outcome(&output);
    ensure!(
        outcome.code == 0,
        "docker {arguments:?}: {}",
        outcome.stderr
    );
    // Servers log on standard error.
    let is_log = arguments.first() == Some(&"logs");
    Ok(if is_log {
        outcome.stdout + &outcome.stderr
    } else {
        outcome.stdout
    })
}

/// What a finished process did.
pub fn outcome(output: &Output) -> Outcome {
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The binary that was built beside this test, or the one that `PGS_BIN` names.
fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("PGS_BIN") {
        return Ok(path.into());
    }
    // target/<profile>/deps/<test> lies two below target/<profile>/pgs.
    let test = env::current_exe()?;
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .context("no target directory")?;
    Ok(profile.join("pgs"))
}
