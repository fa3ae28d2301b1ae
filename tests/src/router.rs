//! One `pgs serve`, from start to stop.

use std::fmt;
use std::fs;
use std::fs::File;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;

use crate::process;

/// Loading the eBPF object and running the canaries included.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// How a session's bytes travel from the tenant's server to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPath {
    /// Redirected by the eBPF program.
    Kernel,
    /// Copied by the router.
    Relay,
}

impl DataPath {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Kernel, Self::Relay];

    /// As `pgs serve --path` and `pgs sessions` call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Relay => "relay",
        }
    }
}

impl fmt::Display for DataPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The binary under test: `PGS_BIN`, or what `cargo build` made beside this test.
pub fn pgs_binary() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/pgs");
    std::env::var_os("PGS_BIN").map_or(built, PathBuf::from)
}

/// A running router. Ended when dropped.
#[derive(Debug)]
pub struct Router {
    child: Child,
    address: SocketAddr,
    state: PathBuf,
    run: PathBuf,
    log: PathBuf,
}

impl Router {
    /// Starts one and waits until it serves.
    pub fn start(state: &Path, run: &Path, path: DataPath) -> anyhow::Result<Self> {
        Self::start_with(state, run, &["--path", path.as_str()])
    }

    /// Starts one with these arguments of `pgs serve` and waits until it serves.
    pub fn start_with(state: &Path, run: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_through(state, run, &[], &[], arguments)
    }

    /// The same by another program, which is to run what follows its own arguments, and with more
    /// in its environment.
    pub fn start_through(
        state: &Path,
        run: &Path,
        program: &[&str],
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(run)?;
        let binary = pgs_binary();
        let mut command = match program {
            [] => Command::new(binary),
            [program, before @ ..] => {
                let mut command = Command::new(program);
                command.args(before).arg(binary);
                command
            }
        };
        command.envs(environment.iter().copied());
        Self::start_at(free_address()?, state, run, "serve.log", command, arguments)
    }

    /// Starts another one in its place, with the same directories and address: after its end, or
    /// with `--take-over` among the arguments. Its log has this name in the run directory.
    pub fn successor(&self, log: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        self.successor_in(log, &[], arguments)
    }

    /// The same, with more in its environment.
    pub fn successor_in(
        &self,
        log: &str,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(pgs_binary());
        command.envs(environment.iter().copied());
        Self::start_at(
            self.address,
            &self.state,
            &self.run,
            log,
            command,
            arguments,
        )
    }

    fn start_at(
        address: SocketAddr,
        state: &Path,
        run: &Path,
        log: &str,
        mut command: Command,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let log = run.join(log);
        let (stdout, stderr) = (
            File::create(&log)?,
            File::options().append(true).open(&log)?,
        );
        let child = command
            .env("PGS_STATE_DIR", state)
            .env("PGS_RUN_DIR", run)
            .args(["serve", "--listen", &address.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let (state, run) = (state.to_owned(), run.to_owned());
        let mut router = Self {
            child,
            address,
            state,
            run,
            log,
        };
        process::eventually("`pgs serve` is ready", START_LIMIT, || {
            if let Some(status) = router.child.try_wait()? {
                bail!("`pgs serve` ended with {status}:\n{}", router.log());
            }
            // Where it takes over, another one answers first.
            let own = |status: &Value| status["pid"] == router.child.id();
            Ok(router.status().ok().filter(own))
        })
        .with_context(|| format!("its log:\n{}", router.log()))?;
        Ok(router)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its run directory.
    pub fn run_directory(&self) -> &Path {
        &self.run
    }

    /// Process id of `pgs serve`.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("no log: {error}"))
    }

    /// A `pgs` command on the same state and run directories, ready for its arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(pgs_binary());
        command
            .env("PGS_STATE_DIR", &self.state)
            .env("PGS_RUN_DIR", &self.run);
        command
    }

    /// What a `pgs` command printed, if it succeeded.
    pub fn pgs(&self, arguments: &[&str]) -> anyhow::Result<String> {
        process::run(self.command().args(arguments), COMMAND_LIMIT)?.success()
    }

    /// What a `pgs … --json` command printed.
    pub fn pgs_json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.pgs(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&printed)
            .with_context(|| format!("`pgs {arguments:?} --json` printed {printed:?}"))
    }

    /// What `pgs status --json` says. Fails while the router does not answer.
    pub fn status(&self) -> anyhow::Result<Value> {
        let status = self.pgs_json(&["status"])?;
        match status.get("router").filter(|router| router.is_object()) {
            Some(router) => Ok(router.clone()),
            None => bail!("`pgs status --json` knows no running router: {status}"),
        }
    }

    /// The live sessions of a tenant.
    pub fn sessions(&self, tenant: &str) -> anyhow::Result<Vec<Value>> {
        let sessions = self.pgs_json(&["sessions", tenant])?;
        let list = sessions.get("sessions").unwrap_or(&sessions);
        let list = list
            .as_array()
            .with_context(|| format!("no list of sessions: {sessions}"))?;
        Ok(list.clone())
    }

    /// Sends a signal to `pgs serve`.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        child_signal(&self.child, signal)
    }

    /// Waits for it to end by itself; `None` if it had to be killed.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
        process::wait(&mut self.child, limit)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            // The first one waits for the sessions to end, the second one does not; two at once are
            // one.
            self.signal(Signal::SIGTERM)?;
            let child = &mut self.child;
            let ended = process::eventually("`pgs serve` ends", STOP_LIMIT, || {
                let status = child.try_wait()?;
                if status.is_none() {
                    child_signal(child, Signal::SIGTERM)?;
                }
                Ok(status)
            });
            if ended.is_err() {
                self.child.kill()?;
                self.child.wait()?;
            }
            ended?;
        }
        Ok(())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            crate::stage::warn(&format!("stopping `pgs serve`: {error:#}"));
        }
    }
}

fn child_signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let process_id = i32::try_from(child.id())?;
    Ok(kill(Pid::from_raw(process_id), signal)?)
}

/// A loopback port that was free a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
