//! While there is no router, sessions end as they would with one, and nothing is left at last.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::process::eventually;
use socket2::SockRef;

use crate::Scenario;
use crate::ground::Ground;
use crate::ground::LIMIT;
use crate::ground::QUIET;
use crate::ground::Session;
use crate::ground::ends;
use crate::stand_in::StandIn;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("a_client_that_sends_no_more", a_client_that_sends_no_more),
    ("a_client_that_is_gone", a_client_that_is_gone),
    ("a_backend_that_ends", a_backend_that_ends),
    (
        "a_backend_that_ends_and_a_client_that_stays",
        a_backend_that_ends_and_a_client_that_stays,
    ),
    (
        "what_waits_for_a_router_comes_before_an_end",
        what_waits_for_a_router_comes_before_an_end,
    ),
    (
        "the_port_is_given_up_and_sessions_are_not",
        the_port_is_given_up_and_sessions_are_not,
    ),
    (
        "an_idle_keeper_waits_and_ends",
        an_idle_keeper_waits_and_ends,
    ),
];

const LONG: Duration = Duration::from_secs(20);

/// A router with two sessions that is killed. The second one lets the keeper live on.
fn orphaned(ground: &Ground) -> anyhow::Result<(Session, Session)> {
    let (mut router, mut sessions) = StandIn::start(ground, 2)?;
    ground.until_slots(2)?;
    router.kill_group(Signal::SIGKILL)?;
    let other = sessions.pop();
    let one = sessions.pop();
    one.zip(other).ok_or_else(|| anyhow::anyhow!("no sessions"))
}

fn a_client_that_sends_no_more() -> anyhow::Result<()> {
    let ground = Ground::new(LONG)?;
    let (mut session, mut other) = orphaned(&ground)?;
    session.client.shutdown(std::net::Shutdown::Write)?;
    ends(&mut session.backend)?;
    // The rest of its results may still come, so that it stays.
    session.client.set_read_timeout(Some(QUIET))?;
    ensure!(
        session.client.read(&mut [0]).is_err(),
        "the client was told too"
    );
    ensure!(ground.report()?.slots == 2);
    session.client.set_read_timeout(Some(LIMIT))?;
    drop(session.backend);
    ends(&mut session.client)?;
    ground.until_slots(1)?;
    is_untouched(&mut other)
}

fn is_untouched(session: &mut Session) -> anyhow::Result<()> {
    session.client.set_read_timeout(Some(QUIET))?;
    session.backend.set_read_timeout(Some(QUIET))?;
    ensure!(
        session.client.read(&mut [0]).is_err(),
        "another client was told"
    );
    ensure!(
        session.backend.read(&mut [0]).is_err(),
        "another backend was told"
    );
    Ok(())
}

fn a_client_that_is_gone() -> anyhow::Result<()> {
    let ground = Ground::new(LONG)?;
    let (mut session, mut other) = orphaned(&ground)?;
    // A reset, as of a process that was killed with bytes unread.
    SockRef::from(&session.client).set_linger(Some(Duration::ZERO))?;
    drop(session.client);
    ends(&mut session.backend)?;
    ground.until_slots(1)?;
    let error = session.backend.write_all(b"result").err();
    let broken = error.map(|error| error.kind()) == Some(std::io::ErrorKind::BrokenPipe);
    ensure!(broken, "the backend sends to nobody");
    is_untouched(&mut other)
}

fn a_backend_that_ends() -> anyhow::Result<()> {
    let ground = Ground::new(LONG)?;
    let (mut session, mut other) = orphaned(&ground)?;
    drop(session.backend);
    ends(&mut session.client)?;
    drop(session.client);
    ground.until_slots(1)?;
    is_untouched(&mut other)
}

fn a_backend_that_ends_and_a_client_that_stays() -> anyhow::Result<()> {
    let ground = Ground::new(LONG)?;
    let (mut session, _other) = orphaned(&ground)?;
    drop(session.backend);
    ends(&mut session.client)?;
    // It has been told and does not close: it is closed on.
    ground.until_slots(1)
}

/// Both ways: a query that no router has moved yet, and a result. As long as one may come.
fn what_waits_for_a_router_comes_before_an_end() -> anyhow::Result<()> {
    let return_wait = Duration::from_secs(4);
    let ground = Ground::new(return_wait)?;
    let (mut asking, mut answering) = orphaned(&ground)?;
    let begun = Instant::now();
    asking.client.write_all(b"query")?;
    asking.client.shutdown(std::net::Shutdown::Write)?;
    answering.backend.write_all(b"result")?;
    drop(answering.backend);
    // Longer than an end takes that nothing waits before.
    let long = Duration::from_secs(1);
    asking.backend.set_read_timeout(Some(long))?;
    answering.client.set_read_timeout(Some(long))?;
    ensure!(
        asking.backend.read(&mut [0]).is_err(),
        "the backend was told before the query"
    );
    ensure!(
        answering.client.read(&mut [0]).is_err(),
        "the client was told before the result"
    );
    ensure!(begun.elapsed() < return_wait, "this machine is too slow");
    asking.backend.set_read_timeout(Some(LIMIT))?;
    answering.client.set_read_timeout(Some(LIMIT))?;
    ends(&mut asking.backend)?;
    ends(&mut answering.client)
}

fn the_port_is_given_up_and_sessions_are_not() -> anyhow::Result<()> {
    let ground = Ground::new(Duration::from_millis(700))?;
    let (mut router, sessions) = StandIn::start(&ground, 1)?;
    ground.until_slots(1)?;
    let keeper = ground.report()?.keeper;
    router.kill_group(Signal::SIGKILL)?;
    let begun = Instant::now();
    // It waits, and is then refused: nobody came.
    let mut client = TcpStream::connect(router.listening)?;
    client.set_read_timeout(Some(LIMIT))?;
    ensure!(
        !matches!(client.read(&mut [0]), Ok(1..)),
        "an answer of nobody"
    );
    ensure!(
        begun.elapsed() > Duration::from_millis(500),
        "refused too early"
    );
    eventually("the port is free", LIMIT, || {
        Ok(TcpStream::connect(router.listening).err().map(drop))
    })?;
    let report = ground.report()?;
    ensure!((report.slots, report.globals) == (1, 0), "{report:?}");
    drop(sessions);
    ground.until_gone(keeper)
}

fn an_idle_keeper_waits_and_ends() -> anyhow::Result<()> {
    let ground = Ground::new(Duration::from_millis(700))?;
    let (mut router, _sessions) = StandIn::start(&ground, 0)?;
    let keeper = ground.report()?.keeper;
    router.kill_group(Signal::SIGKILL)?;
    std::thread::sleep(QUIET);
    ensure!(ground.report()?.keeper == keeper, "it did not wait");
    ground.until_gone(keeper)
}
