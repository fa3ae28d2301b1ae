//! What a router holds for each session that does nothing.

use super::figure::{Metric, Place};
use super::memory;
use super::options::Settings;
use super::stage::Stage;
use super::subject::Subject;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SESSIONS_LIMIT: Duration = Duration::from_secs(60);
const POLL_PERIOD: Duration = Duration::from_millis(100);
/// By which the server tells the idle sessions from others.
const APPLICATION: &str = "pgs-bench-idle";

/// A router of its own, since one that has worked has memory to spare: what it holds with sessions
/// that do nothing, less what it held before them.
pub(super) fn idle(
    stage: &Stage,
    settings: &Settings,
    subject: Subject,
) -> Result<BTreeMap<Metric, f64>> {
    let router = stage.fresh_router(subject, "idle")?;
    // The first session brings in what the others share.
    let mut psql = stage.client_of_router("psql", &router, 0);
    stage.run(psql.args(["-XAtqc", "SELECT 1"]))?;
    let before = memory::resident_bytes(router.process())?;
    let script = stage.ground.path("idle.sql");
    // PgBouncer reaches for a server at the first query.
    fs::write(&script, "SELECT 1;\n\\sleep 600 s\n")?;
    let sessions = settings.idle_sessions.to_string();
    let mut pgbench = stage.client_of_router("pgbench", &router, 600);
    pgbench
        .args(["-n", "-c", &sessions, "-t", "1", "-f"])
        .arg(script);
    let err = File::create(stage.ground.path("client.err"))?;
    pgbench.env("PGAPPNAME", APPLICATION);
    pgbench
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(err);
    let mut clients = Ended(pgbench.spawn()?);
    wait_for_sessions(stage, subject, settings.idle_sessions, &mut clients.0)?;
    let after = memory::resident_bytes(router.process())?;
    drop(clients);
    drop(router);
    // Exact: far below 2^52.
    let grown = after.saturating_sub(before) as f64;
    let each = grown / f64::from(settings.idle_sessions);
    Ok(BTreeMap::from([(Metric::ResidentBytesPerSession, each)]))
}

/// A child that is ended when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Not reaped yet, so the pid is its own. `timeout` passes SIGTERM on.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        drop(self.0.wait());
    }
}

fn wait_for_sessions(
    stage: &Stage,
    subject: Subject,
    wanted: u32,
    clients: &mut Child,
) -> Result<()> {
    let deadline = Instant::now() + SESSIONS_LIMIT;
    loop {
        stage.interruption().check()?;
        let count = sessions(stage, subject)?;
        if count >= wanted {
            return Ok(());
        }
        if let Some(status) = clients.try_wait()? {
            bail!("the idle clients ended ({status}) with {count} of {wanted} sessions there");
        }
        if Instant::now() >= deadline {
            bail!("{count} of {wanted} sessions are there after {SESSIONS_LIMIT:?}");
        }
        thread::sleep(POLL_PERIOD);
    }
}

/// Idle sessions on the subject's server.
fn sessions(stage: &Stage, subject: Subject) -> Result<u32> {
    let query =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{APPLICATION}'");
    let asked = if subject.path().is_some() {
        Subject::UnixSocket
    } else {
        Subject::Published
    };
    let mut psql = stage.client("psql", Place::Loopback, asked, 0)?;
    let answer = stage.run(psql.args(["-XAtqc", &query]))?;
    answer.trim().parse().context("count of sessions")
}
