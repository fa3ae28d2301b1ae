//! What the unit has to do, one step each.

use super::machine::Machine;
use super::passthrough::{self, DOMAIN};
use super::traffic::{Load, PASSWORD, Session, TENANT, with_newcomers};
use crate::process;
use crate::report::Step;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// In which a restart must be over: nothing waits for sessions.
const RESTART_LIMIT: Duration = Duration::from_secs(10);
/// Where another program lies inside, for an upgrade.
const NEXT: &str = "usr/bin/pgs-next";
const POLL_PERIOD: Duration = Duration::from_millis(200);

pub(super) struct Checks<'a> {
    pub(super) machine: &'a Machine,
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
            let load = Load::begin(port)?;
            self.restart(port, &mut session)?;
            self.kill(port, &mut session)?;
            self.upgrade(port, &mut session)?;
            let step = Step::new("pgbench");
            load.end()?;
            step.done("lost none of its sessions in all of that");
        } else {
            let step = Step::new("systemctl restart");
            step.skipped("without the kernel path sessions end with the router");
        }
        self.reload()?;
        session.answers().context("after the reloads")?;
        self.stop()?;
        self.exposure()?;
        passthrough::check(self, port)
    }

    pub(super) fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        self.machine.run(&[&["systemctl"], arguments].concat())
    }

    fn status(&self, property: &str) -> Result<String> {
        self.systemctl(&["show", "--value", "--property", property, "pgs"])
    }

    /// Has the unit's next start be of this program, at that port.
    pub(super) fn serve_as(&self, program: &str, port: u16) -> Result<()> {
        let directory = self.machine.file("etc/systemd/system/pgs.service.d");
        fs::create_dir_all(&directory)?;
        let listen =
            format!("ExecStart={program} serve --listen 127.0.0.1:{port} --tls-domain {DOMAIN}");
        let lines = format!("[Service]\nExecStart=\n{listen}\n");
        fs::write(directory.join("port.conf"), lines)?;
        self.systemctl(&["daemon-reload"]).map(drop)
    }

    fn start(&self, port: u16) -> Result<()> {
        let step = Step::new("systemctl start");
        self.serve_as("/usr/bin/pgs", port)?;
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
    pub(super) fn pgs(&self, arguments: &[&str]) -> Command {
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

    fn restart(&self, port: u16, session: &mut Session) -> Result<()> {
        self.goes_on("systemctl restart", port, session, |may_come| {
            may_come();
            self.systemctl(&["restart", "pgs"]).map(drop)
        })
    }

    fn kill(&self, port: u16, session: &mut Session) -> Result<()> {
        let (before, begun) = (self.status("MainPID")?, Instant::now());
        self.goes_on("SIGKILL", port, session, |may_come| {
            self.systemctl(&["kill", "--signal=SIGKILL", "--kill-whom=main", "pgs"])?;
            // Whom the killed one had accepted has gone with it.
            may_come();
            loop {
                let again = self.status("ActiveState")? == "active";
                if again && self.status("MainPID")? != before {
                    return Ok(());
                }
                ensure!(begun.elapsed() < RESTART_LIMIT, "it is not started again");
                thread::sleep(POLL_PERIOD);
            }
        })
    }

    /// The unit is restarted with another file as its program.
    fn upgrade(&self, port: u16, session: &mut Session) -> Result<()> {
        let next = self.machine.file(NEXT);
        fs::copy(self.binary, &next).with_context(|| format!("copy pgs to {}", next.display()))?;
        self.serve_as(&format!("/{NEXT}"), port)?;
        let done = self.goes_on("systemctl restart, new binary", port, session, |may_come| {
            may_come();
            self.systemctl(&["restart", "pgs"])?;
            let process = format!("/proc/{}/exe", self.status("MainPID")?);
            let runs = self.machine.run(&["readlink", &process])?;
            ensure!(runs.trim() == format!("/{NEXT}"), "it runs {runs}");
            Ok(())
        });
        // Nobody needs its name while it runs.
        fs::remove_file(&next)?;
        done
    }

    /// A session and who comes meanwhile notice nothing but a wait.
    fn goes_on(
        &self,
        name: &'static str,
        port: u16,
        session: &mut Session,
        act: impl FnOnce(&dyn Fn()) -> Result<()>,
    ) -> Result<()> {
        let step = Step::new(name);
        let (before, begun) = (self.status("MainPID")?, Instant::now());
        let (took, come) = with_newcomers(port, |come| act(come).map(|()| begun.elapsed()))?;
        ensure!(self.status("MainPID")? != before, "it is the same process");
        ensure!(took < RESTART_LIMIT, "it took {took:?}");
        session.answers().context("the session has ended")?;
        self.is_listed()?;
        step.done(format_args!(
            "{took:.1?}; the session goes on, and {come} that came meanwhile were served"
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
        self.stop_at_once()?;
        let stored = self.status("NFileDescriptorStore")?;
        ensure!(stored == "0", "{stored} descriptors are stored still");
        step.done("ended well; nothing is stored");
        Ok(())
    }

    /// The file has it wait for no session.
    pub(super) fn stop_at_once(&self) -> Result<()> {
        self.systemctl(&["stop", "pgs"])?;
        let (state, result) = (self.status("ActiveState")?, self.status("Result")?);
        ensure!(
            state == "inactive" && result == "success",
            "{state}, {result}"
        );
        Ok(())
    }

    pub(super) fn exposure(&self) -> Result<()> {
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
