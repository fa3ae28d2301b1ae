//! Who is too slow is closed in time, whatever it has said so far, and nobody beside it.
//!
//! What is slow over TLS is in `tls::deadlines`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("arrivals_in_the_clear", arrivals_in_the_clear),
    ("logins", logins),
    ("a_server_that_does_not_answer", silent_server),
];

/// For the router under test.
pub(crate) const CONFIGURATION: &str = "[limits]\narrival_deadline = '2s'\n\
                                        [tenant_defaults]\nlogin_deadline = '3s'\n";
pub(crate) const ARRIVAL: Duration = Duration::from_secs(2);
const LOGIN: Duration = Duration::from_secs(3);

/// How much later than its deadline a connection may be closed, on a machine that is busy.
const MARGIN: Duration = Duration::from_millis(1_500);

/// Between two bytes of a client that drips.
const DRIP: Duration = Duration::from_millis(50);

/// More than can be dripped before any of the deadlines.
const LONG: usize = 2_000;

/// What a slow client does, on a connection that it makes itself.
pub(crate) struct Slow<'a> {
    pub(crate) name: &'static str,
    /// Connects and says what it has to say.
    pub(crate) begin: Box<dyn Fn() -> anyhow::Result<Wire> + Sync + 'a>,
    /// What it goes on to say, byte by byte.
    pub(crate) drip: Vec<u8>,
    /// Part of what it is told before the end; empty where it is told nothing.
    pub(crate) told: &'static [u8],
}

/// Lets all of them be slow at once, and tells of each that was not closed in time.
pub(crate) fn ensure_closed_in_time(slow: &[Slow<'_>], deadline: Duration) -> anyhow::Result<()> {
    let in_time = deadline..=deadline + MARGIN;
    let wrong: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = slow
            .iter()
            .map(|slow| (slow.name, scope.spawn(|| be_slow(slow, &in_time))))
            .collect();
        let ended = clients.into_iter().map(|(name, client)| {
            let ended = client.join();
            (name, ended.unwrap_or_else(|_| anyhow::bail!("panicked")))
        });
        let wrong = ended.filter_map(|(name, ended)| Some((name, ended.err()?)));
        wrong
            .map(|(name, error)| format!("{name}: {error:#}"))
            .collect()
    });
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

fn be_slow(slow: &Slow<'_>, in_time: &RangeInclusive<Duration>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut wire = (slow.begin)()?;
    let (mut said, mut drip) = (Vec::new(), slow.drip.iter());
    loop {
        let (bytes, ended) = wire.receive_until_quiet(DRIP)?;
        said.extend(bytes);
        let took = begun.elapsed();
        if ended {
            ensure!(in_time.contains(&took), "closed after {took:?}");
            break;
        }
        ensure!(took < *in_time.end(), "not closed after {took:?}");
        if let Some(byte) = drip.next() {
            // Where the router has closed meanwhile, the next look says so.
            wire.send(&[*byte]).ok();
        }
    }
    let told = (said.windows(slow.told.len().max(1))).any(|part| part == slow.told);
    let expected = if slow.told.is_empty() {
        said.is_empty()
    } else {
        told
    };
    ensure!(expected, "was told \"{}\"", said.escape_ascii());
    Ok(())
}

/// A startup packet that has not arrived when the deadline comes.
fn long_packet() -> Vec<u8> {
    startup_packet(PROTOCOL_3_0, &[("user", "u"), ("x", &"x".repeat(LONG))])
}

fn opened(address: SocketAddr, says: &[u8]) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_tcp(address)?;
    wire.send(says)?;
    Ok(wire)
}

/// How often the router has counted something.
pub(crate) fn counted(router: &Router, name: &str) -> anyhow::Result<u64> {
    let status = router.status()?;
    Ok(status["counters"][name].as_u64().unwrap_or(0))
}

fn arrivals_in_the_clear(stage: &Stage) -> anyhow::Result<()> {
    let router = stage
        .installation()?
        .configured_router("arrival-deadline", CONFIGURATION)?;
    // It may have to be made first, for which the deadline is too short.
    let alpha = stage.alpha()?;
    let mut session = Wire::connect_tcp(router.address())?;
    session.log_in(alpha)?;
    let address = router.address();
    let slow = |name, says: Vec<u8>, drip| Slow {
        name,
        begin: Box::new(move || opened(address, &says)),
        drip,
        told: b"",
    };
    let packet = long_packet();
    let clients = [
        slow("silent", Vec::new(), Vec::new()),
        slow("one byte at a time", Vec::new(), packet.clone()),
        slow("half a packet", packet[..LONG / 2].to_vec(), Vec::new()),
    ];
    ensure_closed_in_time(&clients, ARRIVAL)?;
    let malformed = counted(&router, "connections_malformed")?;
    ensure!(malformed == 3, "{malformed} were counted");
    let value = session.query_value("select 1")?;
    ensure!(value == "1", "a session was ended too");
    Ok(())
}

fn logins(stage: &Stage) -> anyhow::Result<()> {
    let router = stage
        .installation()?
        .configured_router("login-deadline", CONFIGURATION)?;
    let alpha = stage.alpha()?;
    let mut session = Wire::connect_tcp(router.address())?;
    session.log_in(alpha)?;
    let address = router.address();
    let slow = |name, drip| Slow {
        name,
        begin: Box::new(move || asked_for_a_password(address, alpha)),
        drip,
        told: b"C57014\0",
    };
    let clients = [
        slow("no password", Vec::new()),
        slow("a password byte by byte", packed(b'p', &[b'x'; LONG])),
    ];
    ensure_closed_in_time(&clients, LOGIN)?;
    let refused = counted(&router, "refused_login_deadline")?;
    ensure!(refused == 2, "{refused} were counted");
    let value = session.query_value("select 1")?;
    ensure!(value == "1", "a session was ended too");
    Wire::connect_tcp(address)?
        .log_in(alpha)
        .context("a login in time")?;
    Ok(())
}

/// Who waits for the server is not told to be faster.
fn silent_server(stage: &Stage) -> anyhow::Result<()> {
    const COMMAND_LIMIT: Duration = Duration::from_secs(60);
    let installation = stage.installation()?;
    let router = installation.configured_router("silent-server", CONFIGURATION)?;
    let tenant = installation.create_tenant("frozen")?;
    Wire::connect_tcp(router.address())?.log_in(tenant.login())?;
    let container = installation.container_of("frozen")?;
    let docker = |verb: &str| {
        let command = &mut Command::new("docker");
        process::run(command.args([verb, &container[..]]), COMMAND_LIMIT)?.success()
    };
    docker("pause")?;
    let (address, login) = (router.address(), tenant.login());
    let parameters = [("user", &login.user[..]), ("database", &login.database)];
    let packet = startup_packet(PROTOCOL_3_0, &parameters);
    let client = Slow {
        name: "client of a server that stands still",
        begin: Box::new(move || opened(address, &packet)),
        drip: Vec::new(),
        told: b"C57P03\0Mthe database system does not answer\0",
    };
    let told = ensure_closed_in_time(&[client], LOGIN);
    docker("unpause")?;
    told?;
    let refused = counted(&router, "refused_tenant_not_answering")?;
    ensure!(refused == 1, "{refused} were counted");
    Ok(())
}

fn asked_for_a_password(address: SocketAddr, login: &Login) -> anyhow::Result<Wire> {
    let parameters = [("user", &login.user[..]), ("database", &login.database)];
    let mut wire = opened(address, &startup_packet(PROTOCOL_3_0, &parameters))?;
    let asked = wire.message()?;
    ensure!(asked.kind == b'R', "not asked for a password: {asked:?}");
    Ok(wire)
}
