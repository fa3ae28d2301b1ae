//! The router is killed, or replaced, while clients work: on the kernel path none of them notices.

mod counting;
mod object;
mod waiting;
mod work;

use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::login::BackendKey;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;
use work::Work;
use work::now;

use crate::Named;
use crate::drain::keeper_of;
use crate::drain::kill;
use crate::drain::until_gone;
use crate::faults::churn::descriptors_of;
use crate::faults::churn::until_descriptors_are_given_back;
use crate::faults::churn::until_nothing_is_left;
use crate::faults::churn::until_sessions_are_gone;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "sessions_go_on_when_the_router_is_killed",
        sessions_go_on_when_the_router_is_killed,
    ),
    (
        "a_session_answers_while_there_is_no_router",
        a_session_answers_while_there_is_no_router,
    ),
    (
        "a_router_taken_over_under_load",
        a_router_taken_over_under_load,
    ),
    (
        "a_session_is_cancelled_whichever_router_has_it",
        a_session_is_cancelled_whichever_router_has_it,
    ),
    (
        "a_router_that_ends_takes_its_keeper_along",
        a_router_that_ends_takes_its_keeper_along,
    ),
    (
        "sessions_that_end_without_a_router_free_their_backends",
        sessions_that_end_without_a_router,
    ),
    (
        "a_router_with_another_ebpf_object",
        object::a_router_with_another_ebpf_object,
    ),
    (
        "a_tenants_bytes_are_never_anothers",
        counting::a_tenants_bytes_are_never_anothers,
    ),
    (
        "bytes_of_a_session_that_stays_are_never_anothers",
        counting::bytes_of_a_session_that_stays_are_never_anothers,
    ),
    (
        "what_routers_have_moved_counts_on",
        counting::what_routers_have_moved_counts_on,
    ),
    (
        "the_last_bytes_of_a_backend_wait_for_a_router",
        waiting::the_last_bytes_of_a_backend,
    ),
    (
        "the_last_bytes_of_a_client_wait_for_a_router",
        waiting::the_last_bytes_of_a_client,
    ),
];

/// Sessions of pgbench, and how long they work.
const CLIENTS: usize = 8;
const WORK: Duration = Duration::from_secs(14);

/// How long there is no router at all, and how long a session may take to get over its end. A
/// machine at its limits lets single ones wait for seconds, with a router and without.
const ALONE: Duration = Duration::from_secs(4);
const SETTLING: Duration = Duration::from_millis(200);

/// With which the router takes pgbench's sessions and two more.
const SESSIONS_MAX: usize = CLIENTS + 2;

const LIMIT: Duration = Duration::from_secs(60);

/// For what has to happen at once.
const PROMPT: Duration = Duration::from_secs(1);

/// Without sessions a keeper waits 30 s for a router; and a margin.
const KEEPER_LIMIT: Duration = Duration::from_secs(40);

fn require_kernel(stage: &Stage) -> anyhow::Result<()> {
    match stage.path() {
        DataPath::Kernel => Ok(()),
        DataPath::Relay => Skip::on_this_path(
            "the relay's sessions end with the router: only the kernel's outlive it",
        ),
    }
}

/// A PostgreSQL client on its way to a router.
fn client(router: &Router, program: &str, login: &Login) -> Command {
    let mut command = Command::new(program);
    command
        .env("PGHOST", router.address().ip().to_string())
        .env("PGPORT", router.address().port().to_string())
        .env("PGUSER", &login.user)
        .env("PGDATABASE", &login.database)
        .env("PGPASSWORD", &login.password)
        .env("PGSSLMODE", "disable");
    command
}

fn fill(router: &Router, login: &Login) -> anyhow::Result<()> {
    let mut initialise = client(router, "pgbench", login);
    initialise.args(["-i", "-s", "1", "-q"]);
    process::run(&mut initialise, LIMIT)?.success().map(drop)
}

/// A session as `pgs sessions --json` shows it.
#[derive(Debug)]
struct Seen {
    id: u64,
    in_kernel: u64,
    diversions: u64,
}

/// All sessions of a tenant that are in the kernel, by their ids.
fn seen(router: &Router, login: &Login) -> anyhow::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for session in router.sessions(&login.user)? {
        if session["path"] == "kernel" {
            seen.push(Seen {
                id: session["id"].as_u64().context("a session without an id")?,
                in_kernel: session["bytes_in_kernel"]
                    .as_u64()
                    .context("a session without bytes")?,
                diversions: session["diversions"].as_u64().context("no diversions")?,
            });
        }
    }
    seen.sort_by_key(|one| one.id);
    Ok(seen)
}

/// The same sessions, and each has moved bytes since, none of them by a router: turns are small.
fn ensure_moved(before: &[Seen], after: &[Seen]) -> anyhow::Result<()> {
    let same = before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| {
            before.id == after.id
                && before.in_kernel < after.in_kernel
                && before.diversions == after.diversions
        });
    ensure!(same, "before: {before:?}; after: {after:?}");
    Ok(())
}

fn log_in(router: &Router, login: &Login) -> anyhow::Result<(Wire, BackendKey)> {
    let mut wire = Wire::connect_tcp(router.address())?;
    let key = wire.log_in(login)?.key()?;
    Ok((wire, key))
}

fn sessions_go_on_when_the_router_is_killed(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let installation = stage.installation()?;
    let tenant = installation.create_tenant("survivor")?;
    let login = tenant.login();
    let sessions_max = ["--sessions-max", &SESSIONS_MAX.to_string()];
    let mut first = installation.second_router_with("killed-at-work", &sessions_max)?;
    fill(&first, login)?;
    let work = Work::begin(&first, login)?;
    let (mut sleeper, key) = log_in(&first, login)?;
    let (mut idle, _) = log_in(&first, login)?;
    sleeper.send_query("select pg_sleep(60)")?;
    // The answer to the login may still be on its way into the counters of the last two.
    let before: Vec<_> = seen(&first, login)?.into_iter().take(CLIENTS).collect();
    kill(&mut first)?;
    let killed_at = now()?;
    thread::sleep(ALONE);
    let alone_until = now()?;

    let path = ["--path", stage.path().as_str()];
    let second = first.successor("second.log", &[path, sessions_max].concat())?;
    let after = seen(&second, login)?;
    ensure!(after.len() == SESSIONS_MAX, "{after:?}");
    ensure_moved(&before, &after[..CLIENTS])?;

    is_refused_for_their_number(&second, login)?;
    cancels(&second, &mut sleeper, &key)?;
    let answers = work.ends_well()?;
    let alone = killed_at + SETTLING..alone_until;
    for client in 0..CLIENTS {
        let answered = answers
            .iter()
            .filter(|(whose, at)| *whose == client && alone.contains(at))
            .count();
        ensure!(answered > 0, "client {client} stood still without a router");
    }
    ensure!(idle.query_value("select 1")? == "1");
    is_ended_by_disable(&second, login, vec![sleeper, idle])
}

/// Sessions that were taken over have their places.
fn is_refused_for_their_number(router: &Router, login: &Login) -> anyhow::Result<()> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", &login.user)]))?;
    let answer = wire.message()?;
    ensure!(
        answer.sqlstate().as_deref() == Some("53300"),
        "one session too many: {answer:?}"
    );
    Ok(())
}

/// The key was issued when another router served.
fn cancels(router: &Router, sleeper: &mut Wire, key: &BackendKey) -> anyhow::Result<()> {
    let sent = Instant::now();
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.send(&key.cancel_request())?;
    ensure!(wire.receive_to_end()?.is_empty());
    let answered = sleeper.until_ready()?;
    let states: Vec<_> = answered.iter().filter_map(Message::sqlstate).collect();
    ensure!(states == ["57014"], "{states:?}");
    ensure!(sent.elapsed() < PROMPT, "after {:?}", sent.elapsed());
    ensure!(sleeper.query_value("select 1")? == "1");
    Ok(())
}

fn is_ended_by_disable(router: &Router, login: &Login, wires: Vec<Wire>) -> anyhow::Result<()> {
    router.pgs(&["disable", &login.user])?;
    let disabled = Instant::now();
    for mut wire in wires {
        let last = wire.message()?;
        ensure!(last.sqlstate().as_deref() == Some("57P01"), "{last:?}");
        ensure!(wire.message_or_end()?.is_none(), "it goes on");
    }
    ensure!(disabled.elapsed() < PROMPT, "{:?}", disabled.elapsed());
    process::eventually("no session is listed", PROMPT, || {
        Ok(router.sessions(&login.user)?.is_empty().then_some(()))
    })
}

fn a_session_answers_while_there_is_no_router(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let installation = stage.installation()?;
    let login = stage.alpha()?;
    let mut first = installation.second_router("absent")?;
    let (mut wire, _) = log_in(&first, login)?;
    ensure!(wire.query_value("select 1")? == "1");
    // The answer may be here before the router has let go of it.
    thread::sleep(SETTLING);
    kill(&mut first)?;
    for turn in 0..100 {
        let answer = wire.query_value(&format!("select {turn}"))?;
        ensure!(answer == turn.to_string(), "turn {turn}: {answer}");
    }
    let second = first.successor("second.log", &["--path", stage.path().as_str()])?;
    ensure!(seen(&second, login)?.len() == 1);
    // Too large for the kernel to take in one turn: the new router has its part in it.
    let answer = wire.query_value("select repeat('x', 5000000)")?;
    ensure!(answer.len() == 5_000_000, "{} bytes", answer.len());
    Ok(())
}

fn a_router_taken_over_under_load(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let installation = stage.installation()?;
    let tenant = installation.create_tenant("successor")?;
    let login = tenant.login();
    let mut first = installation.second_router("taken-over")?;
    fill(&first, login)?;
    until_sessions_are_gone(&first)?;
    let keeper = keeper_of(&first)?;
    let before = descriptors_of(&first, keeper)?;
    let work = Work::begin(&first, login)?;
    let mut query = client(&first, "psql", login);
    query.args(["--no-psqlrc", "-Atc", "select 1"]);
    let newcomers = thread::spawn(move || {
        let mut served = 0_usize;
        let begun = Instant::now();
        while begun.elapsed() < WORK / 2 {
            let answer = process::run(&mut query, LIMIT)?.success()?;
            ensure!(answer == "1\n", "newcomer {served}: {answer}");
            served += 1;
        }
        Ok(served)
    });
    let arguments = ["--path", stage.path().as_str(), "--take-over"];
    let second = first.successor("second.log", &arguments)?;
    ensure!(!newcomers.is_finished(), "it took too long to say anything");
    let ended = first.wait(LIMIT)?.context("the first one goes on")?;
    ensure!(ended.success(), "{ended}: {}", first.log());
    ensure!(
        !newcomers.is_finished(),
        "nobody has come to the second one"
    );
    let served = newcomers
        .join()
        .map_err(|_| anyhow!("the newcomers' thread"))??;
    ensure!(served > 2, "{served} newcomers");
    let after = seen(&second, login)?;
    ensure!(after.len() >= CLIENTS, "{after:?}");
    work.succeeds()?;
    until_nothing_is_left(&second)?;
    ensure!(keeper_of(&second)? == keeper, "another keeper");
    until_descriptors_are_given_back(&second, keeper, before)
}

/// In the kernel it is the new router's; relayed it stays with the old one, and the cancel request
/// comes to the new one all the same.
fn a_session_is_cancelled_whichever_router_has_it(stage: &Stage) -> anyhow::Result<()> {
    let first = stage.installation()?.second_router("cancel-across")?;
    let login = stage.alpha()?;
    let (mut sleeper, key) = log_in(&first, login)?;
    let (mut other, _) = log_in(&first, login)?;
    sleeper.send_query("select pg_sleep(60)")?;
    let arguments = ["--path", stage.path().as_str(), "--take-over"];
    let second = first.successor("second.log", &arguments)?;
    ensure!(second.sessions(&login.user)?.len() == 2);
    cancels(&second, &mut sleeper, &key)?;
    ensure!(other.query_value("select 1")? == "1");
    drop((sleeper, other));
    process::eventually("no session is listed", PROMPT * 2, || {
        Ok(second.sessions(&login.user)?.is_empty().then_some(()))
    })
}

fn a_router_that_ends_takes_its_keeper_along(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let mut first = stage.installation()?.second_router("orderly")?;
    let (mut wire, _) = log_in(&first, stage.alpha()?)?;
    let keeper = keeper_of(&first)?;
    kill(&mut first)?;
    let mut second = first.successor("second.log", &["--path", stage.path().as_str()])?;
    ensure!(keeper_of(&second)? == keeper, "another keeper");
    second.signal(Signal::SIGTERM)?;
    ensure!(wire.query_value("select 1")? == "1", "it may still end");
    wire.send_message(b'X', &[])?;
    let ended = second.wait(LIMIT)?.context("it goes on without sessions")?;
    ensure!(ended.success(), "{ended}: {}", second.log());
    until_gone(&second, keeper, PROMPT)
}

fn sessions_that_end_without_a_router(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let mut router = stage.installation()?.second_router("not-again")?;
    let (polite, _) = log_in(&router, stage.alpha()?)?;
    let (broken, _) = log_in(&router, stage.alpha()?)?;
    let mut watcher = stage.log_in(stage.alpha()?)?;
    let ours = "select count(*) from pg_stat_activity where usename = 'alpha'";
    let ours = format!("{ours} and backend_type = 'client backend' and pid <> pg_backend_pid()");
    let others = watcher.query_value(&ours)?.parse::<usize>()?;
    ensure!(others >= 2, "{others} other sessions");
    let keeper = keeper_of(&router)?;
    kill(&mut router)?;
    drop(polite);
    broken.reset()?;
    process::eventually("their backends are freed", PROMPT * 3, || {
        let left = watcher.query_value(&ours)?.parse::<usize>()?;
        Ok((left + 2 <= others).then_some(()))
    })?;
    until_gone(&router, keeper, KEEPER_LIMIT)
}
