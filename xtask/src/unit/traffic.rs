//! Who uses the port while the unit is put through its paces: a psql that stays, others that come
//! meanwhile, and pgbench.

use crate::process;
use anyhow::{Context, Result, anyhow, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

pub(super) const TENANT: &str = "unit";
pub(super) const PASSWORD: &str = "only for the length of this check";
const LOAD_CLIENTS: u8 = 4;
const POLL_PERIOD: Duration = Duration::from_millis(1);
/// Longer than what is done meanwhile may take, which is then told to stop.
const LOAD_SECONDS: u8 = 60;

/// A client's program, with what it takes to log in.
pub(super) fn client(program: &str, port: u16) -> Command {
    let mut command = Command::new(program);
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", TENANT)
        .env("PGDATABASE", TENANT)
        .env("PGPASSWORD", PASSWORD)
        .env("PGSSLMODE", "disable");
    command
}

/// What `act` gives, and how many sessions began and were answered from where it let them come; the
/// last of them began after it. The first that is not answered is an error.
pub(super) fn with_newcomers<T>(
    port: u16,
    act: impl FnOnce(&dyn Fn()) -> Result<T>,
) -> Result<(T, u32)> {
    let (over, may_come) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let coming = scope.spawn(|| {
            let mut come = 0_u32;
            while !may_come.load(SeqCst) && !over.load(SeqCst) {
                thread::sleep(POLL_PERIOD);
            }
            loop {
                let is_last = over.load(SeqCst);
                let session = Session::begin(port).and_then(|mut session| session.answers());
                session.with_context(|| format!("the session after {come} others"))?;
                come += 1;
                if is_last {
                    return Ok(come);
                }
            }
        });
        let done = act(&|| may_come.store(true, SeqCst));
        over.store(true, SeqCst);
        let come: Result<u32> = coming.join().map_err(|_| anyhow!("its thread panicked"))?;
        let come = come.context("who connected meanwhile was not served")?;
        Ok((done?, come))
    })
}

/// pgbench at work; ended when dropped.
pub(super) struct Load(Child);

impl Load {
    pub(super) fn begin(port: u16) -> Result<Self> {
        process::output(client("pgbench", port).args(["--initialize", "--quiet"]))?;
        let (clients, seconds) = (LOAD_CLIENTS.to_string(), LOAD_SECONDS.to_string());
        let pgbench = client("pgbench", port)
            .args(["--no-vacuum", "--select-only"])
            .args(["--client", &clients, "--time", &seconds])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start pgbench")?;
        Ok(Self(pgbench))
    }

    /// It has lost none of its sessions: one that has ends pgbench, or is told by it.
    pub(super) fn end(mut self) -> Result<()> {
        let ended = self.0.try_wait()?;
        drop(self.0.kill());
        let mut said = String::new();
        if let Some(stderr) = self.0.stderr.take() {
            std::io::Read::read_to_string(&mut BufReader::new(stderr), &mut said)?;
        }
        ensure!(ended.is_none(), "pgbench has ended: {said}");
        ensure!(!said.contains("error"), "pgbench said: {said}");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A psql that stays connected.
pub(super) struct Session {
    psql: Child,
    answers: BufReader<ChildStdout>,
    asked: u32,
}

impl Session {
    pub(super) fn begin(port: u16) -> Result<Self> {
        let mut psql = client("psql", port)
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start psql")?;
        let answers = psql.stdout.take().context("psql has no stdout")?;
        Ok(Self {
            psql,
            answers: BufReader::new(answers),
            asked: 0,
        })
    }

    /// One more query.
    pub(super) fn answers(&mut self) -> Result<()> {
        self.asked += 1;
        let number = self.asked;
        let stdin = self.psql.stdin.as_mut().context("psql has no stdin")?;
        writeln!(stdin, "SELECT {number};")?;
        stdin.flush()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(answer.trim() == number.to_string(), "psql said {answer:?}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.psql.kill());
        drop(self.psql.wait());
    }
}
