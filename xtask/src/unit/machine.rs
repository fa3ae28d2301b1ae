//! The booted systemd: commands inside it, and its end.

use super::rootfs::Rootfs;
use crate::report::Step;
use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const BOOT: &str = include_str!("../../unit/boot.sh");
const BOOT_LIMIT: Duration = Duration::from_secs(30);
const POLL_PERIOD: Duration = Duration::from_millis(200);

/// Ended when dropped.
pub(super) struct Machine {
    boot: Child,
    /// systemd's process id, as this machine sees it.
    init: u32,
    group: PathBuf,
    directory: PathBuf,
    root: PathBuf,
}

impl Machine {
    /// Boots it and waits until nothing is left to be started.
    pub(super) fn boot(groups: &Path, rootfs: &Rootfs, binary: &Path) -> Result<Self> {
        let step = Step::new("boot");
        let name = format!("pgs-unit-{}", std::process::id());
        // Unix sockets have short names only.
        let directory = std::env::temp_dir().join(&name);
        let (group, state) = (groups.join(&name), directory.join("state"));
        fs::create_dir_all(&state)?;
        let script = workspace::scratch("unit")?.join("boot.sh");
        fs::write(&script, BOOT)?;
        let log = fs::File::create(directory.join("boot.log"))?;
        let boot = Command::new("bash")
            .arg(&script)
            .args([group.as_path(), rootfs.path(), &state, binary])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start bash")?;
        let root = rootfs.path().to_owned();
        let mut machine = Self {
            boot,
            init: 0,
            group,
            directory,
            root,
        };
        machine.wait()?;
        step.done("running");
        Ok(machine)
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + BOOT_LIMIT;
        loop {
            if let Some(status) = self.boot.try_wait()? {
                let log = fs::read_to_string(self.directory.join("boot.log"));
                bail!("it ended with {status}: {}", log.unwrap_or_default());
            }
            self.init = self.child().unwrap_or(0);
            let state = match self.init {
                0 => String::new(),
                _ => stdout(&mut self.inside(&["systemctl", "is-system-running"])),
            };
            match state.trim() {
                "running" => return Ok(()),
                "degraded" => {
                    let failed = ["systemctl", "--failed", "--no-legend", "--plain"];
                    bail!("units failed: {}", self.run(&failed)?);
                }
                _ if Instant::now() > deadline => bail!("it is `{}`", state.trim()),
                _ => thread::sleep(POLL_PERIOD),
            }
        }
    }

    /// The first process in the new namespace: the child of `unshare`, which bash has become.
    fn child(&self) -> Option<u32> {
        let boot = self.boot.id();
        let children = fs::read_to_string(format!("/proc/{boot}/task/{boot}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A command inside.
    pub(super) fn inside(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--mount", "--pid", "--cgroup", "--ipc", "--uts"])
            .args(["--root", "--wd"])
            .args(arguments);
        command
    }

    /// What a command inside printed, if it succeeded.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        process::output(&mut self.inside(arguments))
    }

    /// The same, however it ended: without Docker, which is outside, `pgs status` fails at its end.
    pub(super) fn said(&self, arguments: &[&str]) -> String {
        stdout(&mut self.inside(arguments))
    }

    /// Where the installation's state lies outside.
    pub(super) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// A file inside, as it is reached from here.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A directory of its own outside.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the unit has said last.
    pub(super) fn journal(&self) -> String {
        let lines = ["journalctl", "--unit=pgs", "--no-pager", "--lines=40"];
        stdout(&mut self.inside(&lines))
    }

    /// Ends it, and leaves nothing behind.
    pub(super) fn end(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        // With `--kill-child` everything inside ends with it.
        drop(self.boot.kill());
        self.boot.wait()?;
        for _ in 0..50 {
            if remove_groups(&self.group).is_ok() {
                break;
            }
            thread::sleep(POLL_PERIOD);
        }
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // After `end` there is nothing left to do.
        drop(self.stop());
    }
}

/// Its own subtree, from below: a group with others in it cannot be removed.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn stdout(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let bytes = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
