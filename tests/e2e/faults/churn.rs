//! Sessions that come and go in every way, of two tenants by turns: each is its own tenant's, and
//! afterwards nothing of any is left.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs_tests::belongings::descriptors;
use pgs_tests::belongings::map_entries;
use pgs_tests::length::Length;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;

use super::say;
use crate::drain::keeper_of;

/// The maps that have an entry for each session: how many.
const ENTRIES: [(&str, usize); 3] = [("INDEXES", 2), ("SOURCES", 2), ("SOCKETS", 3)];

const THREADS: usize = 4;

/// A router's descriptors that come and go by themselves: those of commands that ask for the
/// status. A keeper has none of these.
const DESCRIPTORS_SLACK: usize = 4;

const LIMIT: Duration = Duration::from_secs(15);

/// Before anybody can have noticed that a keeper does nothing.
const PROMPT: Duration = Duration::from_secs(1);

pub(super) fn leaves_nothing(stage: &Stage) -> anyhow::Result<()> {
    let time = Length::of_this_run()?.time(Duration::from_secs(5));
    let logins = [stage.alpha()?, stage.beta()?];
    let router = stage.installation()?.second_router("churning")?;
    let keeper = keeper_of(&router)?;
    let mut first = log_in(&router, logins[0])?;
    ensure!(first.query_value("select 1")? == "1");
    if stage.path() == DataPath::Kernel {
        // That it can count is seen where there is something to count.
        for (map, each) in ENTRIES {
            let entries = map_entries(router.process_id())?;
            ensure!(entries.get(map) == Some(&each), "{entries:?}");
        }
    }
    drop(first);
    until_sessions_are_gone(&router)?;
    let before = descriptors_of(&router, keeper)?;

    let until = Instant::now() + time;
    let mut ended = 0;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let router = &router;
                scope.spawn(move || churn(router, logins, thread, until))
            })
            .collect();
        for thread in threads {
            ended += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(())
    })?;
    ensure!(
        ended > ENDS.len() * THREADS,
        "{ended} sessions are no churn"
    );
    until_sessions_are_gone(&router)?;
    if stage.path() == DataPath::Kernel {
        until_nothing_is_left(&router)?;
    }
    until_descriptors_are_given_back(&router, keeper, before)?;
    say(&format!(
        "churn, {}: {ended} sessions in {} s, nothing left",
        stage.path(),
        time.as_secs()
    ));
    Ok(())
}

/// Whatever a keeper still has open: a session that has ended has ended for both sides at once.
pub(super) fn stopped_keeper(stage: &Stage) -> anyhow::Result<()> {
    if stage.path() == DataPath::Relay {
        return Skip::on_this_path("the keeper has no sockets of relayed sessions");
    }
    let login = stage.alpha()?;
    let router = stage.installation()?.second_router("kept-open")?;
    let keeper = Pid::from_raw(i32::try_from(keeper_of(&router)?)?);
    let mut watcher = stage.log_in(login)?;
    let mut wire = log_in(&router, login)?;
    let backend = wire.query_value("select pg_backend_pid()")?;
    let alive = format!("select count(*) from pg_stat_activity where pid = {backend}");
    ensure!(watcher.query_value(&alive)? == "1");
    kill(keeper, Signal::SIGSTOP)?;
    wire.reset()?;
    let freed = process::eventually("the backend is freed", PROMPT, || {
        Ok((watcher.query_value(&alive)? == "0").then_some(()))
    });
    kill(keeper, Signal::SIGCONT)?;
    freed?;
    until_nothing_is_left(&router)
}

/// Descriptors of a router and its keeper.
pub(crate) fn descriptors_of(router: &Router, keeper: u32) -> anyhow::Result<[usize; 2]> {
    Ok([descriptors(router.process_id())?, descriptors(keeper)?])
}

/// Waits until both have no more open than before; the router may be the successor of the one that
/// was counted.
pub(crate) fn until_descriptors_are_given_back(
    router: &Router,
    keeper: u32,
    before: [usize; 2],
) -> anyhow::Result<()> {
    let mut last = before;
    let given_back = process::eventually("descriptors are given back", LIMIT, || {
        last = descriptors_of(router, keeper)?;
        let [of_router, of_keeper] = last;
        let all = of_router <= before[0] + DESCRIPTORS_SLACK && of_keeper <= before[1];
        Ok(all.then_some(()))
    });
    given_back.with_context(|| format!("{before:?}, then {last:?}"))
}

/// Waits until no map has an entry of a session.
pub(crate) fn until_nothing_is_left(router: &Router) -> anyhow::Result<()> {
    let mut last = String::new();
    let empty = process::eventually("no entry is left", LIMIT, || {
        let entries = map_entries(router.process_id())?;
        last = format!("{entries:?}");
        let empty = ENTRIES.iter().all(|(map, _)| entries.get(*map) == Some(&0));
        Ok(empty.then_some(()))
    });
    empty.with_context(|| last)
}

pub(crate) fn until_sessions_are_gone(router: &Router) -> anyhow::Result<()> {
    process::eventually("no session is left", LIMIT, || {
        Ok((router.status()?["sessions"] == 0).then_some(()))
    })
}

fn log_in(router: &Router, login: &Login) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(login)?;
    Ok(wire)
}

/// How a session ends.
type End = fn(Wire) -> anyhow::Result<()>;

const STREAM: &str = "select repeat('x', 100000) from generate_series(1, 1000)";

const ENDS: [End; 6] = [
    // In order.
    |mut wire| {
        wire.send_message(b'X', &[])?;
        ensure!(wire.receive_to_end()?.is_empty());
        Ok(())
    },
    // Without a word.
    |_| Ok(()),
    // A reset of a session that does nothing.
    Wire::reset,
    // A reset in a result.
    |mut wire| {
        wire.send_query(STREAM)?;
        wire.receive(200_000)?;
        wire.reset()
    },
    // Closed with most of a result unread.
    |mut wire| {
        wire.send_query(STREAM)?;
        wire.receive(200_000).map(drop)
    },
    // One side first.
    |mut wire| {
        wire.send_query("select 'last'")?;
        wire.shut_down_writing()?;
        let rest = wire.receive_to_end()?;
        ensure!(rest.ends_with(b"Z\0\0\0\x05I"), "{} bytes", rest.len());
        Ok(())
    },
];

fn churn(
    router: &Router,
    logins: [&Login; 2],
    thread: usize,
    until: Instant,
) -> anyhow::Result<usize> {
    let mut ended = 0;
    while Instant::now() < until {
        let turn = thread + ended;
        let login = logins[turn % logins.len()];
        let mut wire = log_in(router, login).with_context(|| format!("session {ended}"))?;
        // Whoever has the place of a former session must not get that one's bytes, nor it these.
        let user = wire.query_value("select current_user")?;
        ensure!(user == login.user, "{user} answers {}", login.user);
        ENDS[turn / logins.len() % ENDS.len()](wire)?;
        ended += 1;
    }
    Ok(ended)
}
