//! The router is killed as soon as it works, again and again, while pgbench goes on; and once with
//! bytes in its hand.

use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::length::Length;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;

use super::churn::descriptors_of;
use super::churn::until_descriptors_are_given_back;
use super::churn::until_nothing_is_left;
use super::churn::until_sessions_are_gone;
use super::say;
use super::servers;
use super::servers::Rows;
use crate::drain::keeper_of;
use crate::drain::kill;
use crate::drain::until_gone;
use crate::queries::require;

const CLIENTS: usize = 8;
const LIMIT: Duration = Duration::from_secs(60);
const PROMPT: Duration = Duration::from_secs(5);

/// How long a router works before it is killed.
const AT_WORK: Duration = Duration::from_secs(1);

/// The last router has so long before pgbench ends.
const LAST: Duration = Duration::from_secs(4);

/// A backend that reads nothing sleeps so long, and its client sends this much to it, which is more
/// than all buffers take, until it has been stuck for that time.
const ASLEEP: Duration = Duration::from_secs(20);
const FLOOD_BYTES: usize = 64 << 20;
const STUCK: Duration = Duration::from_secs(1);

fn pgbench(router: &Router, login: &Login, arguments: &[&str]) -> Command {
    let mut command = Command::new("pgbench");
    command
        .args(arguments)
        .env("PGHOST", router.address().ip().to_string())
        .env("PGPORT", router.address().port().to_string())
        .env("PGUSER", &login.user)
        .env("PGDATABASE", &login.database)
        .env("PGPASSWORD", &login.password)
        .env("PGSSLMODE", "disable");
    command
}

/// Ids of the sessions that the kernel has.
fn ids(router: &Router, login: &Login) -> anyhow::Result<Vec<u64>> {
    let sessions = router.sessions(&login.user)?;
    let kernel = sessions
        .iter()
        .filter(|session| session["path"] == "kernel");
    let mut ids: Vec<_> = kernel
        .filter_map(|session| session["id"].as_u64())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

pub(super) fn again_and_again(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    require("pgbench")?;
    let time = Length::of_this_run()?.time(Duration::from_secs(12));
    let installation = stage.installation()?;
    let tenant = installation.create_tenant("immortal")?;
    let login = tenant.login();
    let mut router = installation.second_router("mortal")?;
    let keeper = keeper_of(&router)?;
    let fill = ["-i", "-s", "1", "-q"];
    process::run(&mut pgbench(&router, login, &fill), LIMIT)?.success()?;
    until_sessions_are_gone(&router)?;
    let before = descriptors_of(&router, keeper)?;
    let (clients, seconds) = (CLIENTS.to_string(), time.as_secs().to_string());
    let work = ["-n", "-S", "-j", "2", "-c", &clients, "-T", &seconds];
    let mut work = pgbench(&router, login, &work);
    let begun = Instant::now();
    let work = thread::spawn(move || process::run(&mut work, time + LIMIT));
    let sessions = process::eventually("pgbench's sessions are in the kernel", LIMIT, || {
        Ok(Some(ids(&router, login)?).filter(|ids| ids.len() == CLIENTS))
    })?;
    let mut kills = 0;
    while begun.elapsed() + LAST < time {
        thread::sleep(AT_WORK);
        ensure!(!work.is_finished(), "pgbench ended after {kills} kills");
        kill(&mut router)?;
        kills += 1;
        let log = format!("{}.log", kills % 2);
        router = router.successor(&log, &["--path", stage.path().as_str()])?;
        let now = ids(&router, login)?;
        ensure!(now == sessions, "kill {kills}: {sessions:?}, then {now:?}");
    }
    ensure!(kills > 1, "only {kills} kills");
    let finished = work.join().map_err(|_| anyhow!("pgbench's thread"))??;
    let said = finished.stderr.clone();
    let printed = finished.success()?;
    let failed = "number of failed transactions: 0 (0.000%)";
    ensure!(printed.contains(failed), "{printed}{said}");
    ensure!(!said.contains("aborted"), "{said}");
    let done = "number of transactions actually processed: ";
    let done = printed.lines().find_map(|line| line.strip_prefix(done));
    say(&format!(
        "kills: {kills} in {seconds} s; pgbench, {clients} clients: {} transactions, 0 failed",
        done.context("pgbench does not say how many")?
    ));
    until_nothing_is_left(&router)?;
    ensure!(keeper_of(&router)? == keeper, "another keeper");
    until_descriptors_are_given_back(&router, keeper, before)?;
    router.signal(Signal::SIGTERM)?;
    let ended = router.wait(PROMPT)?;
    ensure!(ended.is_some_and(|one| one.success()), "{ended:?}");
    until_gone(&router, keeper, PROMPT)
}

/// What a router has read and not written is gone with it. The next one ends such sessions, of
/// which neither side ever sees a hole, and goes on with the one beside them.
pub(super) fn with_bytes_in_hand(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let login = stage.alpha()?;
    let mut router = stage.installation()?.second_router("burdened")?;
    let mut beside = log_in(&router, login)?;
    ensure!(beside.query_value("select 1")? == "1");
    let one = ids(&router, login)?;
    // One whose client does not take what its backend sends, and one the other way round.
    let (mut reader, backend) = servers::begin(&router, login)?;
    let mut rows = Rows::default();
    rows.read_to(&mut reader, 1)?;
    let mut watcher = stage.log_in(login)?;
    let sent = servers::sent_when_asleep(&mut watcher, &backend)?;
    let mut writer = log_in(&router, login)?;
    writer.send_query(&format!("select pg_sleep({})", ASLEEP.as_secs()))?;
    writer.set_write_limit(STUCK)?;
    let flood = packed(b'Q', &vec![b' '; FLOOD_BYTES]);
    ensure!(writer.send(&flood).is_err(), "the flood is taken");
    let three = ids(&router, login)?;
    ensure!(
        three.len() == 3 && one.len() == 1,
        "{one:?}, then {three:?}"
    );
    kill(&mut router)?;
    let router = router.successor("next.log", &["--path", stage.path().as_str()])?;
    process::eventually("what it had in its hand has ended", PROMPT, || {
        Ok((ids(&router, login)? == one).then_some(()))
    })?;
    rows.read_on(&mut reader)?;
    ensure!(rows.0 < sent, "{} rows, none of {sent} is missing", rows.0);
    ensure!(beside.query_value("select 2")? == "2");
    drop((beside, reader, writer));
    until_nothing_is_left(&router)
}

fn log_in(router: &Router, login: &Login) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(login)?;
    Ok(wire)
}

pub(super) fn require_kernel(stage: &Stage) -> anyhow::Result<()> {
    match stage.path() {
        DataPath::Kernel => Ok(()),
        DataPath::Relay => Skip::on_this_path("the relay's sessions end with the router"),
    }
}
