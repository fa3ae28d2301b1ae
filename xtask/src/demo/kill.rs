//! The router is killed while pgbench works, and started again: what became of the sessions.

use super::TENANT;
use super::installation::Installation;
use super::router::Router;
use crate::report::{self, Step};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// It needs no tables, so that the tenant stays as it is.
const SCRIPT: &str = "SELECT 1;\n";
const CLIENTS: usize = 4;
/// How long pgbench works: before, without and after a router.
const WORK_SECONDS: u64 = 8;
/// How long there is no router.
const ABSENCE: Duration = Duration::from_secs(2);
/// How long pgbench's sessions may take to move bytes.
const SESSIONS_LIMIT: Duration = Duration::from_secs(5);
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Kills the router under load, starts another in its place, and says what was seen. It is an error
/// if a session was lost or a transaction failed.
pub(super) fn show(installation: &Installation, router: &mut Router, password: &str) -> Result<()> {
    let status = installation.run(&["status", "--json"])?;
    let status: Value = serde_json::from_str(&status).context("read `pgs status --json`")?;
    if status["router"]["path"] != "kernel" {
        Step::new("SIGKILL").skipped(format_args!(
            "without the kernel path sessions end with the router: {}",
            installation.router_reason()
        ));
        return Ok(());
    }
    let bench = Bench::start(installation, router.port(), password)?;
    let before = at_work(installation)?;
    let step = Step::new("SIGKILL");
    let killed = router.process_id();
    router.kill()?;
    let absent = Instant::now();
    step.done(format_args!(
        "pgs serve, process {killed}, killed; sessions at work: {}",
        ids(&before)
    ));
    thread::sleep(ABSENCE);
    router.start_again(installation)?;
    let after = sessions(installation)?;
    report::line(format_args!(
        "  ✓ process {} serves {:.1} s after the kill; sessions: {}",
        router.process_id(),
        absent.elapsed().as_secs_f64(),
        ids(&after)
    ));
    let moved = moved_meanwhile(&before, &after)?;
    report::line(format_args!(
        "  ✓ the same sessions; meanwhile the eBPF program redirected {moved} bytes"
    ));
    let summary = bench.finish()?;
    ensure!(
        summary.failed == 0,
        "{} transactions failed",
        summary.failed
    );
    report::line(format_args!(
        "  ✓ pgbench, {CLIENTS} clients: {} transactions, {} failed",
        summary.transactions, summary.failed
    ));
    Ok(())
}

/// pgbench at work. Killed if it is dropped before its end.
struct Bench(Option<Child>);

impl Bench {
    fn start(installation: &Installation, port: u16, password: &str) -> Result<Self> {
        let script = installation.scratch("pgbench.sql");
        fs::write(&script, SCRIPT).with_context(|| format!("write {}", script.display()))?;
        let child = Command::new("pgbench")
            .args(["--no-vacuum", "--protocol", "prepared"])
            .args(["--client", &CLIENTS.to_string()])
            .args(["--time", &WORK_SECONDS.to_string()])
            .arg("--file")
            .arg(script)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", port.to_string())
            .env("PGUSER", TENANT)
            .env("PGDATABASE", TENANT)
            .env("PGPASSWORD", password)
            // What is encrypted does not go through the kernel.
            .env("PGSSLMODE", "disable")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start pgbench")?;
        Ok(Self(Some(child)))
    }

    /// Waits for its end, for which it was given a time.
    fn finish(mut self) -> Result<Summary> {
        let child = self.0.take().context("pgbench has ended before")?;
        let output = child.wait_with_output().context("wait for pgbench")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("pgbench failed ({}): {}", output.status, said.trim());
        }
        Summary::parse(&String::from_utf8_lossy(&output.stdout))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Both fail only if it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// What pgbench counted.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    transactions: u64,
    failed: u64,
}

impl Summary {
    /// Reads what `pgbench` prints at its end.
    fn parse(printed: &str) -> Result<Self> {
        let number = |name: &str| {
            printed
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("pgbench printed no `{name}`: {printed}"))
        };
        Ok(Self {
            transactions: number("number of transactions actually processed:")?,
            failed: number("number of failed transactions:")?,
        })
    }
}

/// A session on the kernel path.
#[derive(Debug)]
struct Seen {
    id: u64,
    in_kernel: u64,
}

fn sessions(installation: &Installation) -> Result<Vec<Seen>> {
    let text = installation.run(&["sessions", "--json"])?;
    let value: Value =
        serde_json::from_str(&text).context("read what `pgs sessions --json` printed")?;
    Ok(of_report(&value))
}

/// By their ids.
fn of_report(value: &Value) -> Vec<Seen> {
    let all = value["sessions"].as_array().map_or(&[][..], Vec::as_slice);
    let in_kernel = all.iter().filter(|session| session["path"] == "kernel");
    let mut seen: Vec<_> = in_kernel
        .filter_map(|session| {
            Some(Seen {
                id: session["id"].as_u64()?,
                in_kernel: session["bytes_in_kernel"].as_u64()?,
            })
        })
        .collect();
    seen.sort_by_key(|one| one.id);
    seen
}

/// The sessions, once all of pgbench's have moved bytes.
fn at_work(installation: &Installation) -> Result<Vec<Seen>> {
    let deadline = Instant::now() + SESSIONS_LIMIT;
    loop {
        let seen = sessions(installation)?;
        if seen.len() == CLIENTS && seen.iter().all(|one| one.in_kernel > 0) {
            return Ok(seen);
        }
        ensure!(
            Instant::now() < deadline,
            "pgbench's {CLIENTS} sessions do not move bytes in the kernel: {seen:?}"
        );
        thread::sleep(POLL_PERIOD);
    }
}

/// Bytes between two looks at the same sessions. It is an error if they are not the same, or one
/// has stood still.
fn moved_meanwhile(before: &[Seen], after: &[Seen]) -> Result<u64> {
    ensure!(
        ids(before) == ids(after),
        "sessions were {}, and are {}",
        ids(before),
        ids(after)
    );
    let mut moved = 0;
    for (before, after) in before.iter().zip(after) {
        ensure!(
            after.in_kernel > before.in_kernel,
            "session {} has stood still",
            after.id
        );
        moved += after.in_kernel - before.in_kernel;
    }
    Ok(moved)
}

fn ids(seen: &[Seen]) -> String {
    let ids: Vec<_> = seen.iter().map(|one| one.id.to_string()).collect();
    ids.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(sessions: [(u64, u64); 2]) -> Vec<Seen> {
        let entry = |(id, bytes)| json!({ "id": id, "path": "kernel", "bytes_in_kernel": bytes });
        let relayed = json!({ "id": 1, "path": "relay", "bytes_in_kernel": 0 });
        let [first, second] = sessions.map(entry);
        of_report(&json!({ "sessions": [relayed, first, second] }))
    }

    #[test]
    fn only_the_same_sessions_that_went_on_will_do() {
        let before = report([(7, 100), (8, 100)]);
        let moved = moved_meanwhile(&before, &report([(8, 150), (7, 101)]));
        assert_eq!(moved.ok(), Some(51));
        assert!(moved_meanwhile(&before, &report([(7, 200), (9, 200)])).is_err());
        assert!(moved_meanwhile(&before, &report([(7, 200), (8, 100)])).is_err());
    }

    #[test]
    fn what_pgbench_counted_is_read_or_missed() {
        let printed = "number of transactions actually processed: 1234\n\
                       number of failed transactions: 2 (0.162%)\n";
        let expected = Summary {
            transactions: 1234,
            failed: 2,
        };
        assert_eq!(Summary::parse(printed).ok(), Some(expected));
        assert!(Summary::parse("").is_err());
    }
}
