//! What one suite's run makes outside of its own processes, and its removal.
//!
//! The directory's name carries the pid of the run. A run that was killed leaves things behind;
//! the next one finds them by the directory and removes them.

use super::suite::Suite;
use super::tenant::Tenant;
use crate::{process, report};
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PREFIX: &str = "pgs-conformance-";

/// One run's directories, and the port at which everything is offered in turn.
pub(super) struct Ground {
    run: u32,
    suite: String,
    pgs: PathBuf,
    image: String,
    /// The same for every subject: some suites have it in their sources.
    pub(super) port: u16,
}

impl Ground {
    /// Makes the run's directory, after removing what dead runs have left.
    pub(super) fn prepare(suite: &str, pgs: &Path, image: &str) -> Result<Self> {
        for run in left_behind()? {
            report::line(format_args!("  … removing what run {run} left behind"));
            drop(Self::of(run, suite, pgs, image, 0));
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
        let port = listener.local_addr()?.port();
        let ground = Self::of(std::process::id(), suite, pgs, image, port);
        DirBuilder::new()
            .mode(0o711)
            .create(ground.directory())
            .with_context(|| format!("create {}", ground.directory().display()))?;
        Ok(ground)
    }

    fn of(run: u32, suite: &str, pgs: &Path, image: &str, port: u16) -> Self {
        Self {
            run,
            suite: suite.to_owned(),
            pgs: pgs.to_owned(),
            image: image.to_owned(),
            port,
        }
    }

    /// Short: the path of a Unix socket in it may have no more than 107 bytes.
    pub(super) fn directory(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{PREFIX}{}", self.run))
    }

    pub(super) fn state_directory(&self) -> PathBuf {
        self.directory().join("state")
    }

    /// The image that tenants are made from, unless a suite wants another.
    pub(super) fn image(&self) -> &str {
        &self.image
    }

    /// A name for a container of this run that is no tenant's.
    pub(super) fn container(&self, what: &str) -> String {
        format!("{PREFIX}{}-{what}", self.run)
    }

    /// Where what the suite prints goes; it stays after the run.
    pub(super) fn log(&self, subject: &str) -> PathBuf {
        let logs = crate::workspace::target().join("xtask/conformance/logs");
        logs.join(format!("{}-{subject}.txt", self.suite))
    }

    /// `pgs` with its directories.
    pub(super) fn pgs(&self) -> Command {
        let mut command = Command::new(&self.pgs);
        command
            .arg("--state-dir")
            .arg(self.state_directory())
            .arg("--run-dir")
            .arg(self.directory().join("run"));
        command
    }

    /// A suite's tenant, made anew; it goes when it is dropped.
    pub(super) fn tenant(&self, suite: &dyn Suite) -> Result<Tenant<'_>> {
        let image = suite.image().unwrap_or(&self.image);
        Tenant::create(self, suite.tenant(), image)
    }

    fn clear(&self) -> Result<()> {
        let sockets = self.state_directory().join("sockets");
        for entry in fs::read_dir(&sockets).into_iter().flatten() {
            let id = entry?.file_name();
            process::output(self.pgs().arg("remove").arg(id).arg("--yes"))?;
        }
        let mut list = Command::new("docker");
        let filter = format!("name=^{PREFIX}{}-", self.run);
        list.args(["ps", "--all", "--quiet", "--filter", &filter]);
        for container in process::output(&mut list)?.lines() {
            let mut remove = Command::new("docker");
            process::output(remove.args(["rm", "--force", "--volumes", container]))?;
        }
        let directory = self.directory();
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            report::line(format_args!("  ✗ not removed: {error:#}"));
        }
    }
}

/// Runs that have a directory and no process.
fn left_behind() -> Result<Vec<u32>> {
    let temporary = std::env::temp_dir();
    let entries = fs::read_dir(&temporary).with_context(|| format!("{}", temporary.display()))?;
    let run = |name: &str| name.strip_prefix(PREFIX)?.parse().ok();
    Ok(entries
        .filter_map(|entry| run(entry.ok()?.file_name().to_str()?))
        .filter(|run: &u32| !Path::new("/proc").join(run.to_string()).exists())
        .collect())
}
