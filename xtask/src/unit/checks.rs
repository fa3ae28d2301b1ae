//! What the unit has to do, one step each.

use super::machine::Machine;
use crate::process;
use crate::report::Step;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const TENANT: &str = "unit";
const PASSWORD: &str = "only for the length of this check";
/// In which a restart must be over: nothing waits for sessions.
const RESTART_LIMIT: Duration = Duration::from_secs(10);
const POLL_PERIOD: Duration = Duration::from_millis(200);

pub(super) struct Checks<'a> {
    machine: &'a Machine,
    binary: &'a Path,
    image: String,
}

impl<'a> Checks<'a> {
    pub(super) fn new(machine: &'a Machine, binary: &'a Path, image: String) -> Self {
        Self {
            machine,
            binary,
            image,
        }
    }

    pub(super) fn run(&self) -> Result<()> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        self.start(port)?;
        let _tenant = self.tenant()?;
        let mut session = Session::begin(port)?;
        session.answers()?;
        if self.status("StatusText")?.contains("kernel") {
            self.restart(&mut session)?;
            self.kill(&mut session)?;
        } else {
            let step = Step::new("systemctl restart");
            step.skipped("without the kernel path sessions end with the router");
        }
        self.reload()?;
        session.answers().context("after the reloads")?;
        self.stop()?;
        self.exposure()
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        self.machine.run(&[&["systemctl"], arguments].concat())
    }

    fn status(&self, property: &str) -> Result<String> {
        self.systemctl(&["show", "--value", "--property", property, "pgs"])
    }

    fn start(&self, port: u16) -> Result<()> {
        let step = Step::new("systemctl start");
        let directory = self.machine.file("etc/systemd/system/pgs.service.d");
        fs::create_dir_all(&directory)?;
        let listen = format!("ExecStart=/usr/bin/pgs serve --listen 127.0.0.1:{port}");
        let lines = format!("[Service]\nExecStart=\n{listen}\n");
        fs::write(directory.join("port.conf"), lines)?;
        self.systemctl(&["daemon-reload"])?;
        self.systemctl(&["start", "pgs"])?;
        ensure!(self.status("ActiveState")? == "active");
        let kept = self.machine.said(&["pgs", "status"]);
        ensure!(kept.contains("kept by   systemd"), "{kept}");
        ensure!(kept.contains("no capabilities"), "{kept}");
        let (text, stored) = (
            self.status("StatusText")?,
            self.status("NFileDescriptorStore")?,
        );
        step.done(format_args!("{text}; {stored} descriptors stored"));
        Ok(())
    }

    /// Root's commands work from outside: Docker is the machine's.
    fn pgs(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command
            .env("PGS_STATE_DIR", self.machine.state())
            .env("PGS_RUN_DIR", self.machine.directory().join("run"))
            .env("PGS_IMAGE", &self.image)
            .args(arguments);
        command
    }

    fn tenant(&self) -> Result<Tenant<'_>> {
        let step = Step::new("tenant");
        let file = self.machine.directory().join("password");
        fs::write(&file, format!("{PASSWORD}\n"))?;
        let file = file.to_string_lossy();
        let create = ["create", TENANT, "--enable", "--password-file", &file];
        process::output(&mut self.pgs(&create))?;
        step.done("made");
        Ok(Tenant(self))
    }

    fn restart(&self, session: &mut Session) -> Result<()> {
        let step = Step::new("systemctl restart");
        let (before, begun) = (self.status("MainPID")?, Instant::now());
        self.systemctl(&["restart", "pgs"])?;
        let took = begun.elapsed();
        let after = self.status("MainPID")?;
        ensure!(before != after, "it is the same process");
        ensure!(took < RESTART_LIMIT, "it took {took:?}");
        session.answers().context("the session has ended")?;
        self.is_listed()?;
        step.done(format_args!("{took:.1?}; the session goes on"));
        Ok(())
    }

    fn kill(&self, session: &mut Session) -> Result<()> {
        let step = Step::new("SIGKILL");
        let (before, begun) = (self.status("MainPID")?, Instant::now());
        self.systemctl(&["kill", "--signal=SIGKILL", "--kill-whom=main", "pgs"])?;
        loop {
            let again = self.status("ActiveState")? == "active";
            if again && self.status("MainPID")? != before {
                break;
            }
            ensure!(begun.elapsed() < RESTART_LIMIT, "it is not started again");
            thread::sleep(POLL_PERIOD);
        }
        session.answers().context("the session has ended")?;
        self.is_listed()?;
        step.done(format_args!(
            "started again within {:.1?}; the session goes on",
            begun.elapsed()
        ));
        Ok(())
    }

    fn is_listed(&self) -> Result<()> {
        let sessions = self.machine.run(&["pgs", "sessions"])?;
        ensure!(
            sessions.contains(TENANT),
            "no session is listed: {sessions}"
        );
        Ok(())
    }

    fn reload(&self) -> Result<()> {
        let step = Step::new("systemctl reload");
        let directory = self.machine.file("etc/pgs");
        fs::create_dir_all(&directory)?;
        let write = |text: &str| -> Result<()> {
            fs::write(directory.join("pgs.toml"), text)?;
            // Its owner and mode are as `tmpfiles.d` has them.
            let tmpfiles = ["systemd-tmpfiles", "--create", "pgs.conf"];
            self.machine.run(&tmpfiles).map(drop)
        };
        write("[limits]\nsessions_max = 17\n")?;
        self.systemctl(&["reload", "pgs"])?;
        let journal = self.machine.journal();
        ensure!(journal.contains("sessions_max: "), "{journal}");
        write("[limits]\nsesions_max = 18\n")?;
        let bad = self.systemctl(&["reload", "pgs"]);
        ensure!(bad.is_err(), "a file that cannot be used is taken");
        let status = self.machine.said(&["pgs", "status"]);
        ensure!(status.contains("did you mean `sessions_max`?"), "{status}");
        ensure!(self.status("ActiveState")? == "active");
        step.done("a good file counts, a bad one is refused and named in `pgs status`");
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        let step = Step::new("systemctl stop");
        fs::write(
            self.machine.file("etc/pgs/pgs.toml"),
            "[serve]\ndrain_deadline = 0\n",
        )?;
        self.systemctl(&["reload", "pgs"])?;
        self.systemctl(&["stop", "pgs"])?;
        let (state, result) = (self.status("ActiveState")?, self.status("Result")?);
        ensure!(
            state == "inactive" && result == "success",
            "{state}, {result}"
        );
        let stored = self.status("NFileDescriptorStore")?;
        ensure!(stored == "0", "{stored} descriptors are stored still");
        step.done("ended well; nothing is stored");
        Ok(())
    }

    fn exposure(&self) -> Result<()> {
        let step = Step::new("systemd-analyze security");
        let table = self.machine.run(&["systemd-analyze", "security", "pgs"])?;
        match table.lines().find(|line| line.contains("Overall exposure")) {
            Some(line) => step.done(line.trim_start_matches("→ ")),
            None => bail!("it gives no figure: {table}"),
        }
        Ok(())
    }
}

/// Removed when dropped.
struct Tenant<'a>(&'a Checks<'a>);

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        if let Err(error) = process::output(&mut self.0.pgs(&["remove", TENANT, "--yes"])) {
            Step::new("tenant").skipped(format_args!("not removed: {error:#}"));
        }
    }
}

/// A psql that stays connected.
struct Session {
    psql: Child,
    answers: BufReader<ChildStdout>,
    asked: u32,
}

impl Session {
    fn begin(port: u16) -> Result<Self> {
        let mut psql = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", port.to_string())
            .env("PGUSER", TENANT)
            .env("PGDATABASE", TENANT)
            .env("PGPASSWORD", PASSWORD)
            .env("PGSSLMODE", "disable")
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
    fn answers(&mut self) -> Result<()> {
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
