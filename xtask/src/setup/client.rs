//! Programs from the distribution: PostgreSQL's client programs and iproute2.

use crate::report::Step;
use crate::{apt, process};
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Read by the package when it would make a cluster; there only while it is being installed.
const CLUSTER_SETTINGS: &str = "/etc/postgresql-common/createcluster.d/pgs.conf";

/// psql for everything, pgbench for load.
pub(super) fn ensure() -> Result<()> {
    let step = Step::new("PostgreSQL client");
    if !runs("psql") {
        install(&step, "psql", &["postgresql-client"])?;
    }
    if !runs("pgbench") {
        install_pgbench(&step)?;
    }
    let version = process::output(Command::new("psql").arg("--version"))?;
    step.done(format_args!("{version}, with pgbench"));
    Ok(())
}

/// Debian's wrapper of this name is on PATH even while no package carries the program itself.
fn runs(program: &str) -> bool {
    process::succeeds(Command::new(program).arg("--version"))
}

/// `ip`, for the network namespaces that tests make.
pub(super) fn ensure_iproute() -> Result<()> {
    let step = Step::new("iproute2");
    if process::find("ip").is_none() {
        install(&step, "ip", &["iproute2"])?;
    }
    step.done(process::output(Command::new("ip").arg("-V"))?);
    Ok(())
}

/// Debian and Ubuntu ship pgbench in the server's package. A cluster must not come along with it:
/// it would take port 5432.
fn install_pgbench(step: &Step) -> Result<()> {
    let guard = Path::new(CLUSTER_SETTINGS);
    if apt::can_install() {
        if let Some(parent) = guard.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(guard, "create_main_cluster = false\n")?;
    }
    let installed = install(step, "pgbench", &["postgresql"]);
    if guard.exists() {
        fs::remove_file(guard)?;
    }
    installed
}

fn install(step: &Step, program: &str, packages: &[&str]) -> Result<()> {
    if apt::can_install() {
        return apt::install(step, packages);
    }
    let packages = packages.join(" ");
    if process::find("apt-get").is_some() {
        bail!("`{program}` is not installed; run `sudo apt-get install {packages}`");
    }
    bail!("`{program}` is not installed; install what your distribution calls {packages}")
}
