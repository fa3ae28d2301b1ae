//! `pgs serve` for as long as the demo runs.

use super::installation::Installation;
use crate::report::Step;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::cell::RefCell;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const STANDARD_PORT: u16 = 5432;
/// From start to the first answer, canaries included.
const START_LIMIT: Duration = Duration::from_secs(20);
/// From SIGTERM to the end, a drain included.
const STOP_LIMIT: Duration = Duration::from_secs(15);
const POLL_PERIOD: Duration = Duration::from_millis(50);
/// Lines of the log shown when the router does not come up.
const LOG_LINES: usize = 8;

/// A running router; killed if it is dropped without having been stopped.
pub(super) struct Router {
    child: RefCell<Child>,
    port: u16,
    log: PathBuf,
}

impl Router {
    /// Starts it, and returns when it serves.
    pub(super) fn start(installation: &Installation, port: Option<u16>) -> Result<Self> {
        let port = port.map_or_else(free_port, Ok)?;
        let log = installation.log_path();
        File::create(&log).with_context(|| format!("create {}", log.display()))?;
        Self::launch(installation, port, log)
    }

    /// Starts another one in the place of one that has ended; it goes on with its log.
    pub(super) fn start_again(&mut self, installation: &Installation) -> Result<()> {
        *self = Self::launch(installation, self.port, self.log.clone())?;
        Ok(())
    }

    fn launch(installation: &Installation, port: u16, log: PathBuf) -> Result<Self> {
        let step = Step::new("router");
        let file = File::options().append(true).open(&log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        step.doing(format_args!("pgs serve on port {port}"));
        let child = installation
            .pgs()
            .args([
                "serve",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--drain-seconds",
                "5",
            ])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C reaches the demo alone, which then ends the router in order.
            .process_group(0)
            .spawn()
            .context("start `pgs serve`")?;
        let router = Self {
            child: RefCell::new(child),
            port,
            log,
        };
        let deadline = Instant::now() + START_LIMIT;
        while !router.serves(installation) {
            if !router.is_running() || Instant::now() >= deadline {
                bail!(
                    "`pgs serve` does not come up; its log ends with:\n    {}",
                    router.tail()
                );
            }
            thread::sleep(POLL_PERIOD);
        }
        step.done(format_args!("pgs serve answers on 127.0.0.1:{port}"));
        Ok(router)
    }

    /// Whether it answers itself: its port is open while a keeper holds it, too.
    fn serves(&self, installation: &Installation) -> bool {
        let status = installation.run(&["status", "--json"]).unwrap_or_default();
        serde_json::from_str::<Value>(&status)
            .is_ok_and(|status| status["router"]["pid"] == self.process_id())
    }

    /// SIGKILL, which leaves it no time for anything.
    pub(super) fn kill(&self) -> Result<()> {
        let mut child = self.child.borrow_mut();
        child.kill().context("send SIGKILL to `pgs serve`")?;
        child.wait().context("wait for `pgs serve`")?;
        Ok(())
    }

    pub(super) fn process_id(&self) -> u32 {
        self.child.borrow().id()
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.child.borrow_mut().try_wait(), Ok(None))
    }

    /// Asks it to drain, and waits for its end.
    pub(super) fn stop(self) -> Result<()> {
        if !self.is_running() {
            bail!(
                "`pgs serve` has ended by itself; its log ends with:\n    {}",
                self.tail()
            );
        }
        let id = i32::try_from(self.child.borrow().id()).context("a process id is too large")?;
        kill(Pid::from_raw(id), Signal::SIGTERM).context("send SIGTERM to `pgs serve`")?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.is_running() {
            if Instant::now() >= deadline {
                bail!("`pgs serve` has not ended {STOP_LIMIT:?} after SIGTERM; it is killed");
            }
            thread::sleep(POLL_PERIOD);
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n    ")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let mut child = self.child.borrow_mut();
        // Both fail only if it has ended already.
        drop(child.kill());
        drop(child.wait());
    }
}

/// 5432 if nobody listens there, else whatever the kernel has.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, STANDARD_PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
