//! What answers at the suite's port: the tenant's server itself, or pgs before it.

use super::ground::Ground;
use super::program;
use super::suite::Suite;
use super::tenant::Tenant;
use crate::{process, report};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL_PERIOD: Duration = Duration::from_millis(50);
/// Seconds that socat waits for one direction after the other has ended; 0.5 if not told.
const HALF_CLOSE_SECONDS: &str = "60";

/// Where the suite's clients connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Subject {
    /// The tenant's server, with nothing but socat to give its socket a port.
    Direct,
    /// `pgs serve --path relay`.
    Relay,
    /// `pgs serve --path kernel`.
    Kernel,
}

impl Subject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Kernel => "kernel",
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

/// The sessions of one subject.
#[derive(Default)]
pub(super) struct Carried {
    sessions: u64,
    kernel: usize,
}

impl Carried {
    pub(super) fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.kernel += other.kernel;
    }

    /// Fails if the sessions did not go the way that is tested.
    pub(super) fn check(&self, subject: Subject) -> Result<()> {
        ensure!(self.sessions > 0, "pgs carried no session");
        if subject == Subject::Kernel {
            ensure!(self.kernel > 0, "no session went through the kernel");
        }
        Ok(())
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} sessions, {} in the kernel",
            self.sessions, self.kernel
        )
    }
}

/// It answers until it is dropped.
pub(super) struct Endpoint<'a> {
    ground: &'a Ground,
    pub(super) subject: Subject,
    /// Which of the suite's ways this is.
    pub(super) mode: &'static str,
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

    /// How many sessions pgs carried, and how.
    pub(super) fn carried(&self) -> Result<Carried> {
        if self.subject == Subject::Direct {
            return Ok(Carried::default());
        }
        let counters = self.router()?["counters"].clone();
        // The log says of every session, when it ends, which way it went.
        let log = fs::read_to_string(self.log_path())?;
        let kernel = log
            .lines()
            .filter(|line| line.contains("session closed") && line.contains("path=\"kernel\""));
        Ok(Carried {
            sessions: counters["sessions"].as_u64().unwrap_or_default(),
            kernel: kernel.count(),
        })
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
        .args(["serve", "--drain-seconds", "1", "--path", subject.name()])
        .args(["--listen", &format!("127.0.0.1:{}", ground.port)])
        .args(arguments);
    command
}
