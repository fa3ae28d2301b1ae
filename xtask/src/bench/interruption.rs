//! Ctrl-C and SIGTERM: the client that runs is ended, and the run unwinds and removes what it made.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Whether somebody wants this run to end.
pub(super) struct Interruption {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    raised: bool,
    /// The client that is waited for. Not reaped while it stands here, so that the pid is its own.
    client: Option<Pid>,
}

impl Interruption {
    /// From here on the signals no longer end this process. Programs that it starts get them as
    /// usual.
    pub(super) fn listen() -> Result<Arc<Self>> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("handle signals")?;
        let interruption = Arc::new(Self {
            state: Mutex::default(),
        });
        let shared = Arc::clone(&interruption);
        thread::spawn(move || {
            for _ in signals.forever() {
                shared.raise();
            }
        });
        Ok(interruption)
    }

    /// # Errors
    /// Somebody wants the run to end.
    pub(super) fn check(&self) -> Result<()> {
        if self.state().raised {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Runs a client to its end, which an interruption brings nearer.
    pub(super) fn run(&self, command: &mut Command) -> Result<ExitStatus> {
        let name = command.get_program().display().to_string();
        let mut child = command.spawn().with_context(|| format!("start `{name}`"))?;
        let waited = self.wait(&child);
        if waited.is_err() {
            child.kill().with_context(|| format!("end `{name}`"))?;
        }
        let status = child.wait().with_context(|| format!("wait for `{name}`"))?;
        waited?;
        self.check()?;
        Ok(status)
    }

    fn wait(&self, child: &Child) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        {
            let mut state = self.state();
            state.client = Some(pid);
            if state.raised {
                kill(pid, Signal::SIGTERM).context("end the client")?;
            }
        }
        let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        self.state().client = None;
        ended.map(drop).context("waitid")
    }

    fn raise(&self) {
        let mut state = self.state();
        state.raised = true;
        if let Some(client) = state.client {
            // It may have ended just now: then there is nothing to end.
            kill(client, Signal::SIGTERM).ok();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn interruption() -> Arc<Interruption> {
        Arc::new(Interruption {
            state: Mutex::default(),
        })
    }

    #[test]
    fn a_client_runs_to_its_end() {
        let status = interruption().run(Command::new("sh").args(["-c", "exit 3"]));
        assert_eq!(status.unwrap().code(), Some(3));
    }

    #[test]
    fn an_interruption_ends_the_client_and_the_run() {
        let interruption = interruption();
        let shared = Arc::clone(&interruption);
        let raising = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            shared.raise();
        });
        let started = Instant::now();
        assert!(interruption.run(Command::new("sleep").arg("30")).is_err());
        assert!(started.elapsed() < Duration::from_secs(10));
        raising.join().unwrap();
        assert!(interruption.check().is_err());
        assert!(interruption.run(Command::new("sleep").arg("30")).is_err());
    }
}
