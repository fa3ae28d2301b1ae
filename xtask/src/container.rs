//! A PostgreSQL server in a container that is no tenant's.

use crate::process;
use anyhow::{Result, bail};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const READY_LIMIT: Duration = Duration::from_secs(120);
const POLL_PERIOD: Duration = Duration::from_millis(200);

/// Waits until its server takes clients.
pub(crate) fn wait_ready(container: &str) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    // While the data is being made the server listens on its Unix socket alone.
    let ready = || {
        let mut docker = Command::new("docker");
        docker.args(["exec", container, "pg_isready", "-q", "-h", "127.0.0.1"]);
        process::succeeds(&mut docker)
    };
    while !ready() {
        if Instant::now() >= deadline {
            bail!("{container} is not ready after {READY_LIMIT:?}; see `docker logs {container}`");
        }
        thread::sleep(POLL_PERIOD);
    }
    Ok(())
}
