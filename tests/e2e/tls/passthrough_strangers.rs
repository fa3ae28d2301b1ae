//! What strangers can do where TLS passes through, and nobody here sees whether they log in.

use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::first_packet;
use pgs_tests::login::startup_packet;
use pgs_tests::process::eventually;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::trust;
use pgs_tests::trust::Issued;
use pgs_tests::wire::Wire;

use super::Ground;
use super::SSL_REQUEST;
use super::TENANT;
use super::passthrough::host;
use super::passthrough::refused;
use super::passthrough::with_passthrough;
use super::serve_as_it_is;

/// One client.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

/// Another one.
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Twice `address_logins_max`, where nothing is configured.
const LOGINS: usize = 64;

/// More than once the time for which each of them counts, and for which the server bears with it.
const ATTACK: Duration = Duration::from_secs(60);

/// Shortly before the server has enough of a client that does not say who it is: it then counts
/// the time anew, until it has enough of one that does not say its password.
const SILENCE: Duration = Duration::from_secs(12);

const LIMIT: Duration = Duration::from_secs(10);

/// A connection over TLS to the tenant's own host name.
fn named(router: &Router, from: IpAddr) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_from(from, router.address())?;
    wire.send(&first_packet(SSL_REQUEST, b""))?;
    ensure!(wire.receive(1)? == b"S", "no TLS");
    wire.secure(trust::client(Some(&host()), None)?)
}

/// Whether it leads to the tenant's server, and not to a refusal.
fn is_through(wire: &Wire, own: &Issued) -> anyhow::Result<bool> {
    let shown = wire.tls()?.peer_certificates().unwrap_or_default();
    Ok(shown.first() == Some(&own.der))
}

/// One of those who never log in.
struct Stranger {
    wire: Wire,
    begun: Instant,
    has_named_itself: bool,
}

impl Stranger {
    /// None where one more is refused.
    fn begin(router: &Router, own: &Issued) -> anyhow::Result<Option<Self>> {
        let wire = named(router, HERE)?;
        if is_through(&wire, own)? {
            return Ok(Some(Self {
                wire,
                begun: Instant::now(),
                has_named_itself: false,
            }));
        }
        let (state, message) = refused(wire)?;
        let expected = "too many logins from this address are under way";
        ensure!(state == "53300" && message == expected, "{state} {message}");
        Ok(None)
    }

    fn goes_on(&mut self) {
        if !self.has_named_itself && self.begun.elapsed() > SILENCE {
            let packet = startup_packet(PROTOCOL_3_0, &[("user", TENANT)]);
            // It may be too late.
            self.wire.send(&packet).ok();
            self.has_named_itself = true;
        }
    }
}

pub(super) fn leave_a_tenant_its_places(stage: &Stage) -> anyhow::Result<()> {
    with_passthrough(stage, |ground, own| {
        let router = &ground.router;
        let begun = Instant::now();
        let mut strangers: Vec<Stranger> = Vec::new();
        while begun.elapsed() < ATTACK {
            while let Some(stranger) = Stranger::begin(router, own)? {
                strangers.push(stranger);
            }
            strangers.iter_mut().for_each(Stranger::goes_on);
            let (begun, live) = (strangers.len(), router.sessions(TENANT)?.len());
            // The other's session of the last turn may just be ending.
            ensure!(live <= LOGINS + 1, "{live} at once, {begun} in all");
            let mut other = named(router, THERE)?;
            let greeting = other.log_in(ground.tenant.login());
            greeting.with_context(|| format!("beside {live} of {begun}"))?;
            other.send_message(b'X', b"")?;
            other.receive_to_end()?;
            sleep(Duration::from_millis(500));
        }
        // The server has had enough of the first, and the router of none sooner.
        let all = strangers.len();
        ensure!(all > LOGINS && all <= 3 * LOGINS, "{all} in {ATTACK:?}");
        // Those that end need no place.
        drop(strangers);
        eventually("places are given back", LIMIT, || {
            let logged_in = named(router, HERE)?.log_in(ground.tenant.login());
            Ok(logged_in.ok())
        })?;
        Ok(())
    })
}

/// Another router of the installation.
fn configured(ground: &Ground<'_>, name: &str, configuration: &str) -> anyhow::Result<Router> {
    let file = ground.installation.scratch(&format!("{name}.toml"));
    fs::write(&file, configuration)?;
    let file = file.to_string_lossy();
    serve_as_it_is(ground.installation, name, &["--config", &file])
}

/// Until they must be logged in, they have places among those of their address, too.
pub(super) fn count_for_their_address(stage: &Stage) -> anyhow::Result<()> {
    const PLACES: usize = 5;
    with_passthrough(stage, |ground, own| {
        let limits = format!("[limits]\naddress_arrivals_max = {PLACES}\n");
        let router = configured(ground, "places", &limits)?;
        let mut strangers = Vec::new();
        for at in 0..PLACES {
            let wire = named(&router, HERE)?;
            ensure!(is_through(&wire, own)?, "the {at}th is refused");
            strangers.push(wire);
        }
        let told = Wire::connect_from(HERE, router.address())?.message()?;
        ensure!(told.sqlstate().as_deref() == Some("53300"), "{told:?}");
        named(&router, THERE)?.log_in(ground.tenant.login())?;
        drop(strangers);
        eventually("places are given back", LIMIT, || {
            let wire = named(&router, HERE);
            Ok(wire
                .and_then(|mut wire| wire.log_in(ground.tenant.login()))
                .ok())
        })?;
        Ok(())
    })
}

pub(super) fn guess_so_often(stage: &Stage) -> anyhow::Result<()> {
    with_passthrough(stage, |ground, _| {
        let limits = "[limits]\naddress_unseen_login_rate_per_minute = 1\n\
                      address_unseen_login_burst = 3\n";
        let router = configured(ground, "guesses", limits)?;
        for _ in 0..3 {
            let mut wire = named(&router, HERE)?;
            let as_whom = [("user", TENANT), ("database", TENANT)];
            wire.send(&startup_packet(PROTOCOL_3_0, &as_whom))?;
            let told = wire.authenticate("not the password")?.refused();
            ensure!(told.as_deref() == Some("28P01"), "{told:?}");
        }
        let (state, message) = refused(named(&router, HERE)?)?;
        let expected = "too many logins from this address within a short time";
        ensure!(state == "53300" && message == expected, "{state} {message}");
        named(&router, THERE)?.log_in(ground.tenant.login())?;
        Ok(())
    })
}

pub(super) fn leave_few_lines(stage: &Stage) -> anyhow::Result<()> {
    const BEGUN: usize = 150;
    const WRITTEN: usize = 100;
    with_passthrough(stage, |ground, own| {
        let limits = "[limits]\naddress_unseen_login_rate_per_minute = \"off\"\n";
        let mut router = configured(ground, "lines", limits)?;
        for at in 0..BEGUN {
            let wire = named(&router, HERE)?;
            ensure!(is_through(&wire, own)?, "the {at}th is refused");
        }
        eventually("they are gone", LIMIT, || {
            Ok(router.sessions(TENANT)?.is_empty().then_some(()))
        })?;
        let passed = router.status()?["counters"]["tls_passed_through"].as_u64();
        ensure!(passed == Some(BEGUN as u64), "{passed:?}");
        router.signal(Signal::SIGTERM)?;
        router.wait(LIMIT)?.context("it does not end")?;
        let log = router.log();
        let left_out = BEGUN - WRITTEN;
        for (line, kind) in [
            ("session begins, its TLS", "unseen_session_begins"),
            ("session closed", "unseen_session_closed"),
        ] {
            let written = log.lines().filter(|one| one.contains(line)).count();
            ensure!(written == WRITTEN, "{written} lines {line:?}:\n{log}");
            let said = format!("kind=\"{kind}\" lines={left_out}");
            ensure!(log.contains(&said), "not said of {kind}:\n{log}");
        }
        Ok(())
    })
}
