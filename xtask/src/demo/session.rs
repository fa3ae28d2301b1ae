//! psql through the router: one query, and a session that stays open to be looked at.

use super::TENANT;
use super::installation::Installation;
use crate::{process, report};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// 5000 queries with 1 kB each as the answer, so that it is plain which way the bytes of small
/// turns go.
const QUERIES: &str = r"SELECT 'SELECT repeat(''x'', 1000)' FROM generate_series(1, 5000) \gexec";
const MARK: &str = "-- end of the result --";
/// How long the counters may take to show what psql has received.
const COUNTERS_LIMIT: Duration = Duration::from_secs(5);
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Runs one query with psql on this terminal.
pub(super) fn query(port: u16, password: &str, sql: &str) -> Result<()> {
    process::visible(psql(port, password).args(["--command", sql]))
}

fn psql(port: u16, password: &str) -> Command {
    let mut command = Command::new("psql");
    command
        .args([
            "--no-psqlrc",
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ])
        .args(["--username", TENANT, "--dbname", TENANT])
        .args(["--set", "ON_ERROR_STOP=1", "--pset", "pager=off"])
        .env("PGPASSWORD", password);
    command
}

/// A psql whose queries have been answered and that is still connected.
pub(super) struct OpenSession {
    psql: Child,
}

impl OpenSession {
    pub(super) fn start(port: u16, password: &str) -> Result<Self> {
        let mut psql = psql(port, password)
            .args(["--quiet", "--tuples-only", "--no-align"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start psql")?;
        let stdin = psql.stdin.as_mut().context("psql has no stdin")?;
        writeln!(stdin, "{QUERIES}\n\\echo {MARK}")?;
        stdin.flush()?;
        let stdout = psql.stdout.take().context("psql has no stdout")?;
        let arrived = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .any(|line| line == MARK);
        let session = Self { psql };
        if !arrived {
            bail!("psql ended before its results were there; its message is above");
        }
        Ok(session)
    }

    /// What the router counts for this session, once the counters have caught up.
    pub(super) fn sight(&self, installation: &Installation) -> Result<Sight> {
        let deadline = Instant::now() + COUNTERS_LIMIT;
        loop {
            let text = installation.run(&["sessions", "--json"])?;
            let value: Value =
                serde_json::from_str(&text).context("read what `pgs sessions --json` printed")?;
            if let Some(session) = value["sessions"].as_array().and_then(|all| all.first()) {
                let sight = Sight::of(session);
                if sight.bytes > 0 || Instant::now() >= deadline {
                    return Ok(sight);
                }
            } else if Instant::now() >= deadline {
                bail!("`pgs sessions` does not show the session that is open");
            }
            thread::sleep(POLL_PERIOD);
        }
    }

    /// Ends psql as a person would, at the end of its input.
    pub(super) fn close(mut self) -> Result<()> {
        drop(self.psql.stdin.take());
        let status = self.psql.wait()?;
        if !status.success() {
            bail!("psql ended with {status}");
        }
        Ok(())
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.psql.kill());
        drop(self.psql.wait());
    }
}

/// One session's counters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sight {
    path: String,
    reason: Option<String>,
    /// In both directions.
    bytes: u64,
    in_kernel: u64,
}

impl Sight {
    fn of(session: &Value) -> Self {
        let number = |key: &str| session[key].as_u64().unwrap_or_default();
        Self {
            path: session["path"].as_str().unwrap_or("unknown").to_owned(),
            reason: session["path_reason"].as_str().map(str::to_owned),
            bytes: number("bytes_to_client") + number("bytes_to_backend"),
            in_kernel: number("bytes_in_kernel"),
        }
    }

    /// Says in words which way the bytes went.
    pub(super) fn explain(&self, router_reason: &str) {
        if self.in_kernel > 0 {
            report::line(format_args!(
                "  ✓ path {}: of {} bytes the eBPF program redirected {}",
                self.path, self.bytes, self.in_kernel
            ));
        } else {
            report::line(format_args!(
                "  – path {}: {} bytes, none by the kernel: {}",
                self.path,
                self.bytes,
                self.reason.as_deref().unwrap_or(router_reason)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counters_are_read_from_the_report() {
        let sight = Sight::of(&json!({
            "path": "kernel", "path_reason": null,
            "bytes_to_client": 7, "bytes_to_backend": 2, "bytes_in_kernel": 5
        }));
        assert_eq!((sight.bytes, sight.in_kernel, sight.reason), (9, 5, None));
    }
}
