//! The Docker engine and its daemon. A running daemon is used as it is.

use crate::report::Step;
use crate::{apt, process, workspace};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(60);
const POLL_PERIOD: Duration = Duration::from_millis(300);

pub(super) fn ensure() -> Result<()> {
    let step = Step::new("Docker");
    if let Ok(version) = server_version() {
        step.done(format_args!("engine {version} answers"));
        return Ok(());
    }
    ensure_installed(&step)?;
    start(&step)?;
    let version = server_version()?;
    step.done(format_args!("engine {version} started"));
    Ok(())
}

/// Where no daemon answers. A client alone is not enough, unless the daemon is somebody else's:
/// then `start` says what is missing.
fn ensure_installed(step: &Step) -> Result<()> {
    let client = process::find("docker").is_some();
    let elsewhere = std::env::var_os("DOCKER_HOST").is_some();
    if client && (elsewhere || process::find("dockerd").is_some()) {
        return Ok(());
    }
    if !apt::can_install() {
        bail!(
            "Docker is not installed; as root on Debian or Ubuntu this command installs it, \
             elsewhere see https://docs.docker.com/engine/install/"
        );
    }
    apt::install(step, &["docker.io"])?;
    // Newer releases have the client in a package of its own.
    if process::find("docker").is_none() {
        apt::install(step, &["docker-cli"])?;
    }
    Ok(())
}

fn server_version() -> Result<String> {
    process::output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))
}

fn start(step: &Step) -> Result<()> {
    if let Some(host) = std::env::var_os("DOCKER_HOST") {
        bail!(
            "no Docker daemon answers at DOCKER_HOST={}; start it",
            host.display()
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "no Docker daemon answers to this user; start it (`sudo systemctl start docker`), \
             and run as root or as a member of the group `docker`"
        );
    }
    if Path::new("/run/systemd/system").exists() {
        step.doing("starting the daemon with systemctl");
        process::output(Command::new("systemctl").args(["start", "docker"]))
            .context("the daemon does not start; see `journalctl -u docker`")?;
        return wait_for_answer("see `journalctl -u docker`");
    }
    start_detached(step)
}

/// Without an init system the daemon is a process of its own that outlives this one.
fn start_detached(step: &Step) -> Result<()> {
    let Some(program) = process::find("dockerd") else {
        bail!("Docker's client is here but its daemon `dockerd` is not; install the engine");
    };
    let log_path = workspace::scratch("")?.join("dockerd.log");
    step.doing(format_args!(
        "starting the daemon; its log is {}",
        log_path.display()
    ));
    let log = File::create(&log_path)?;
    Command::new("setsid")
        .arg("--fork")
        .arg(program)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("start dockerd")?;
    wait_for_answer(&format!("its log {} ends with:", log_path.display())).map_err(|error| {
        let log = fs::read_to_string(&log_path).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(5)..].join("\n    ");
        anyhow::anyhow!("{error}\n    {tail}")
    })
}

fn wait_for_answer(where_to_look: &str) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while server_version().is_err() {
        if Instant::now() >= deadline {
            bail!("the Docker daemon does not answer after {START_LIMIT:?}; {where_to_look}");
        }
        thread::sleep(POLL_PERIOD);
    }
    Ok(())
}
