//! What answers at the suite's port: the tenant's server itself, or pgs before it.

use super::carried::Carried;
use super::encryption;
use super::ground::Ground;
use super::program;
use super::suite::Suite;
use super::tenant::Tenant;
use crate::{process, report};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long the router may take to notice that the suite's clients are gone.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
const POLL_PERIOD: Duration = Duration::from_millis(50);
/// Seconds that socat waits for one direction after the other has ended; 0.5 if not told.
const HALF_CLOSE_SECONDS: &str = "60";

/// Where the suite's clients connect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Subject {
    /// The tenant's server, with nothing but socat to give its socket a port.
    // Always run: the others are compared with it.
    #[value(skip)]
    Direct,
    /// `pgs serve --path relay`.
    Relay,
    /// `pgs serve --path kernel`.
    Kernel,
    /// `pgs serve --path relay` with a certificate, and nobody let in without TLS.
    Tls,
}

impl Subject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Kernel => "kernel",
            Self::Tls => "tls",
        }
    }

    /// What `pgs serve` is told of it.
    fn serve_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Direct => &[],
            Self::Relay => &["--path", "relay"],
            Self::Kernel => &["--path", "kernel"],
            Self::Tls => &["--path", "relay", "--tls-required"],
        }
    }
}

/// A container beside pgs that answers in its place; it goes when it is dropped.
pub(super) struct Reference {
    pub(super) container: String,
}

impl Drop for Reference {
    fn drop(&mut self) {
        let mut remove = Command::new("docker");
        remove.args(["rm", "--force", "--volumes", &self.container]);
        if let Err(error) = process::output(&mut remove) {
            report::line(format_args!("  ✗ remove {}: {error:#}", self.container));
        }
    }
}

/// It answers until it is dropped.
pub(super) struct Endpoint<'a> {
    ground: &'a Ground,
    pub(super) subject: Subject,
    /// Which of the suite's ways this is.
    pub(super) mode: &'static str,
    /// What its clients have to trust, where it wants TLS.
    root_certificate: Option<PathBuf>,
    child: Option<Child>,
    /// Held for what its end does.
    _reference: Option<Reference>,
}

impl<'a> Endpoint<'a> {
    /// Starts it and waits until it answers.
    pub(super) fn start(
        subject: Subject,
        ground: &'a Ground,
        suite: &dyn Suite,
        mode: &'static str,
        tenant: &Tenant<'_>,
    ) -> Result<Self> {
        let direct = subject == Subject::Direct;
        let reference = if direct {
            suite.reference(ground, mode)?
        } else {
            None
        };
        encryption::remove(ground)?;
        let root_certificate = match subject {
            Subject::Tls => Some(encryption::install(ground)?),
            Subject::Direct | Subject::Relay | Subject::Kernel => None,
        };
        let command = match (direct, &reference) {
            (true, Some(_)) => None,
            (true, None) => Some(socat(ground.port, tenant)),
            (false, _) => {
                let arguments = suite.serve_arguments(ground, mode, tenant)?;
                Some(serve(ground, subject, &arguments))
            }
        };
        let mut endpoint = Self {
            ground,
            subject,
            mode,
            root_certificate,
            child: None,
            _reference: reference,
        };
        if let Some(command) = command {
            endpoint.spawn(&command)?;
        }
        Ok(endpoint)
    }

    /// Where it answers.
    pub(super) fn port(&self) -> u16 {
        self.ground.port
    }

    /// The certificate of the authority that clients have to trust; none without TLS.
    pub(super) fn root_certificate(&self) -> Option<&Path> {
        self.root_certificate.as_deref()
    }

    /// How many sessions pgs carried, and how; asked when the suite's clients are gone.
    pub(super) fn carried(&self) -> Result<Carried> {
        if self.subject == Subject::Direct {
            return Ok(Carried::default());
        }
        let deadline = Instant::now() + CLOSE_LIMIT;
        loop {
            let sessions = self.router()?["counters"]["sessions"].as_u64();
            let log = fs::read_to_string(self.log_path())?;
            let carried = Carried::read(sessions.unwrap_or_default(), &log);
            // Elsewhere it is enough that some have gone the way that is tested.
            let all = self.subject != Subject::Tls || carried.all_closed();
            if all || Instant::now() >= deadline {
                return Ok(carried);
            }
            thread::sleep(POLL_PERIOD);
        }
    }

    /// What `pgs status` says of the router.
    fn router(&self) -> Result<Value> {
        let status = process::output(self.ground.pgs().args(["status", "--json"]))?;
        let status: Value = serde_json::from_str(&status).context("read `pgs status --json`")?;
        ensure!(status["router"].is_object(), "pgs serve does not answer");
        Ok(status["router"].clone())
    }

    fn log_path(&self) -> PathBuf {
        let directory = self.ground.directory();
        directory.join(format!("{}.log", self.subject.name()))
    }

    fn spawn(&mut self, command: &Command) -> Result<()> {
        let log_path = self.log_path();
        let log = File::create(&log_path)?;
        let child = program::dying_with_us(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.subject.name()))?;
        self.child = Some(child);
        self.wait_until_listening().with_context(|| {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(8)..].join("\n    ")
        })
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port())).is_err() {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("{} ended ({status})", self.subject.name());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} does not listen after {START_LIMIT:?}",
                    self.subject.name()
                );
            }
            thread::sleep(POLL_PERIOD);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let deadline = Instant::now() + STOP_LIMIT;
        // Not reaped yet while this says so, hence the pid is still its own.
        while child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                bail!("it did not end within {STOP_LIMIT:?} of SIGTERM and was killed");
            }
            // A second one tells pgs not to wait for its sessions.
            kill(pid, Signal::SIGTERM)?;
            thread::sleep(POLL_PERIOD);
        }
        Ok(())
    }
}

impl Drop for Endpoint<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            report::line(format_args!("  ✗ end {}: {error:#}", self.subject.name()));
        }
    }
}

fn socat(port: u16, tenant: &Tenant<'_>) -> Command {
    let mut command = Command::new("socat");
    let socket = tenant.socket_directory().join(".s.PGSQL.5432");
    command
        .args(["-t", HALF_CLOSE_SECONDS])
        .arg(format!(
            "TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=512"
        ))
        .arg(format!("UNIX-CONNECT:{}", socket.display()));
    command
}

fn serve(ground: &Ground, subject: Subject, arguments: &[String]) -> Command {
    let mut command = ground.pgs();
    command
        .args(["serve", "--drain-seconds", "1"])
        .args(subject.serve_arguments())
        .args(["--listen", &format!("127.0.0.1:{}", ground.port)])
        .args(arguments);
    command
}
