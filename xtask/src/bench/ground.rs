//! What a run makes outside of its own processes: names for all of it, and its removal.
//!
//! Every name carries the pid of the run. A run that was killed leaves things behind; its directory
//! says so, and the next run removes them.

use crate::{process, report};
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PREFIX: &str = "pgs-bench-";
/// The tenant, its role and its database; role and database of the plain container too.
pub(super) const TENANT: &str = "bench";

/// One run's names.
pub(super) struct Ground {
    run: u32,
    pgs: PathBuf,
}

impl Ground {
    /// Makes the run's directory, after removing what dead runs have left.
    pub(super) fn prepare(pgs: &Path) -> Result<Self> {
        for run in left_behind()? {
            report::line(format_args!("  … removing what run {run} left behind"));
            drop(Self::of(run, pgs));
        }
        let ground = Self::of(std::process::id(), pgs);
        // PgBouncer, which is not root, finds its configuration in it.
        DirBuilder::new()
            .mode(0o711)
            .create(ground.directory())
            .with_context(|| format!("create {}", ground.directory().display()))?;
        Ok(ground)
    }

    fn of(run: u32, pgs: &Path) -> Self {
        Self {
            run,
            pgs: pgs.to_owned(),
        }
    }

    /// Short, since the path of a Unix socket in it may have no more than 107 bytes.
    pub(super) fn directory(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{PREFIX}{}", self.run))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub(super) fn state_directory(&self) -> PathBuf {
        self.path("state")
    }

    pub(super) fn namespace(&self) -> String {
        format!("{PREFIX}{}", self.run)
    }

    /// The veth pair: the machine's end and the clients'. Names have at most 15 bytes, and pids at
    /// most 7 digits.
    pub(super) fn veth(&self) -> (String, String) {
        (format!("pgsb{}h", self.run), format!("pgsb{}c", self.run))
    }

    /// The container whose port is published.
    pub(super) fn container(&self) -> String {
        format!("{PREFIX}{}-published", self.run)
    }

    /// A last byte but one for addresses: two runs at once seldom have the same.
    pub(super) fn subnet(&self) -> u32 {
        self.run % 256
    }

    /// `pgs` with its directories.
    pub(super) fn pgs(&self, run_directory: &str) -> Command {
        let mut command = Command::new(&self.pgs);
        command
            .arg("--state-dir")
            .arg(self.state_directory())
            .arg("--run-dir")
            .arg(self.path(run_directory));
        command
    }

    fn clear(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut remove = |what: &str, exists: bool, command: &mut Command| {
            if exists && let Err(error) = process::output(command) {
                left.push(format!("{what}: {error:#}"));
            }
        };
        let (veth, _) = self.veth();
        remove(
            "the tenant",
            // Made with the tenant, and gone with it.
            self.state_directory().join("sockets").join(TENANT).exists(),
            self.pgs("run").args(["remove", TENANT, "--yes"]),
        );
        let container = self.container();
        let docker = |arguments: &[&str]| {
            let mut command = Command::new("docker");
            command.args(arguments).arg(&container);
            command
        };
        remove(
            "the published container",
            process::succeeds(&mut docker(&["container", "inspect"])),
            &mut docker(&["rm", "--force", "--volumes"]),
        );
        // First: with the namespace it would go too, but some time later.
        remove(
            "the veth pair",
            Path::new("/sys/class/net").join(&veth).exists(),
            Command::new("ip").args(["link", "del", &veth]),
        );
        remove(
            "the network namespace",
            Path::new("/run/netns").join(self.namespace()).exists(),
            Command::new("ip").args(["netns", "del", &self.namespace()]),
        );
        if left.is_empty()
            && let Err(error) = fs::remove_dir_all(self.directory())
        {
            left.push(format!("{}: {error}", self.directory().display()));
        }
        left
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for what in self.clear() {
            report::line(format_args!("  ✗ not removed: {what}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_enough_for_the_longest_pid() {
        // Not dropped: it would look for what it never made.
        let ground = std::mem::ManuallyDrop::new(Ground::of(4_194_304, Path::new("pgs")));
        let (host, clients) = ground.veth();
        assert!(host.len() <= 15 && clients.len() <= 15 && host != clients);
        let socket = ground.state_directory().join("sockets/bench/.s.PGSQL.5432");
        assert!(socket.as_os_str().len() <= 107);
    }
}
