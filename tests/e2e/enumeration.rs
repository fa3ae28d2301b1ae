//! Nobody can find out which tenants there are: one that does not exist, one whose access is off
//! and one that does not allow the address are told the same, after the same time. So is whoever
//! names one of them, and then one that lets him in.
//!
//! Times are compared within one run, asked for by turns in an order drawn by lot. How far two
//! samples of the same thing are apart is found by splitting the samples of tenants that do not
//! exist into halves by lot, many times; another kind of tenant must not be further apart from
//! them.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::installation::Installation;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::first_packet;
use pgs_tests::login::startup_packet;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Tenant;
use pgs_tests::trust;
use pgs_tests::wire::Wire;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("neither_answer_nor_time_tells", neither),
    ("nor_does_what_comes_next", nor_next),
];

const SSL_REQUEST: u32 = 1234 << 16 | 5679;

/// The kind of a TLS record with a ServerHello.
const HANDSHAKE: u8 = 22;

const DOMAIN: &str = "db.test";

/// Names of one length, so that the answers are too.
const UNKNOWN: [&str; 2] = ["absent", "nobody"];
const DISABLED: &str = "closed";
const FENCED: &str = "fenced";

/// Lets everybody in, to be asked for a password.
const OPEN: &str = "opened";

/// Lets everybody in who encrypts, and tells the others without asking its server.
const STRICT: &str = "strict";

/// Tries of each name over each transport.
const TRIES: usize = 120;

/// Splits by which it is found how far apart two samples of the same thing are.
const SPLITS: usize = 1_000;

/// How much further apart than the furthest of these counts as different.
const SLACK: f64 = 1.3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Clear,
    Tls,
    /// Up to the ServerHello: the server name is the tenant's.
    ServerName,
}

fn neither(stage: &Stage) -> anyhow::Result<()> {
    let installation = Installation::start(stage.path())?;
    let _hidden = hidden(&installation)?;
    let router = installation.router();
    let issued = trust::issue(&installation.scratch("issued"), &["localhost"])?;
    let (certificate, key) = (
        issued.certificate.to_string_lossy(),
        issued.key.to_string_lossy(),
    );
    let files = ["--certificate", &certificate, "--key", &key];
    router.pgs(&[&["tls", "set", "--default"], &files[..]].concat())?;
    // A router of its own has had the certificate from the beginning.
    let router = installation.second_router_with("enumerated", &["--tls-domain", DOMAIN])?;
    for transport in [Transport::Clear, Transport::Tls, Transport::ServerName] {
        measure(|name| ask(&router, transport, name)).with_context(|| format!("{transport:?}"))?;
    }
    let passing = installation.create_tenant("passing")?;
    router.pgs(&[&["tls", "set", "--tenant", passing.id()], &files[..]].concat())?;
    router.pgs(&["set", passing.id(), "tls=passthrough"])?;
    router.pgs(&["restart", passing.id()])?;
    measure(|name| ask(&router, Transport::ServerName, name))
        .context("beside a tenant whose TLS passes through")
}

/// Tenants that let nobody in who asks here.
fn hidden(installation: &Installation) -> anyhow::Result<[Tenant<'_>; 2]> {
    let disabled = installation.create_tenant_with(DISABLED, &[])?;
    let fenced = installation.create_tenant(FENCED)?;
    // As long as it may be, so that reading it takes its time.
    let networks: Vec<_> = (0..250).map(|net| format!("192.0.{net}.0/24")).collect();
    let allow = format!("allow={}", networks.join(","));
    installation.router().pgs(&["set", FENCED, &allow])?;
    Ok([disabled, fenced])
}

/// How a startup packet names a tenant behind the one that it names first.
#[derive(Debug, Clone, Copy)]
enum Next {
    Database,
    OptionBehindUser,
    OptionBehindDatabase,
    Listener,
}

const NEXT: [Next; 4] = [
    Next::Database,
    Next::OptionBehindUser,
    Next::OptionBehindDatabase,
    Next::Listener,
];

fn nor_next(stage: &Stage) -> anyhow::Result<()> {
    let installation = Installation::start(stage.path())?;
    let _hidden = hidden(&installation)?;
    let _open = installation.create_tenant(OPEN)?;
    let _strict = installation.create_tenant(STRICT)?;
    installation
        .router()
        .pgs(&["set", STRICT, "tls=required"])?;
    let pinned = [OPEN, STRICT].map(|tenant| format!("127.0.0.1:0={tenant}"));
    let arguments = ["--listen", &pinned[0], "--listen", &pinned[1]];
    let router = installation.second_router_with("enumerated", &arguments)?;
    for (tenant, expected) in [(OPEN, "SCRAM-SHA-256"), (STRICT, "TLS is required")] {
        let pinned = listener_of(&router, tenant)?;
        for next in NEXT {
            let ask = |guess: &str| {
                let (took, body) = ask_next(&router, pinned, next, guess, tenant)?;
                ensure!(body.contains(expected), "{guess}: {body}");
                Ok((took, body))
            };
            // What a server takes to begin would hide what is looked for: the bytes are enough.
            let asked = match tenant {
                STRICT => measure(ask),
                _ => same_bytes(ask),
            };
            asked.with_context(|| format!("{tenant}, {next:?}"))?;
        }
    }
    Ok(())
}

/// Where clients come to the tenant that name none.
fn listener_of(router: &Router, tenant: &str) -> anyhow::Result<SocketAddr> {
    let status = router.status()?;
    let all = status["listen"].as_array().context("no listeners")?;
    let mut named = all.iter().filter_map(|one| one.as_str()?.split_once('='));
    let found = named.find(|(_, of)| *of == tenant).context("no listener")?;
    Ok(found.0.parse()?)
}

/// The first message, and how many seconds it took to come.
fn ask_next(
    router: &Router,
    pinned: SocketAddr,
    next: Next,
    guess: &str,
    tenant: &str,
) -> anyhow::Result<(f64, String)> {
    let option = format!("-c pgs.tenant={tenant}");
    let (address, user, database, options) = match next {
        Next::Database => (router.address(), guess, tenant, ""),
        Next::OptionBehindUser => (router.address(), guess, "postgres", &option[..]),
        Next::OptionBehindDatabase => (router.address(), "reader", guess, &option[..]),
        Next::Listener => (pinned, guess, "postgres", ""),
    };
    let parameters = [("user", user), ("database", database), ("options", options)];
    let mut wire = Wire::connect_tcp(address)?;
    let begin = Instant::now();
    wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
    let answer = wire.message()?;
    let took = begin.elapsed().as_secs_f64();
    let body = answer.body.escape_ascii().to_string();
    Ok((took, body.replace(guess, "<name>")))
}

fn same_bytes(ask: impl Fn(&str) -> anyhow::Result<(f64, String)>) -> anyhow::Result<()> {
    let (_, expected) = ask(UNKNOWN[0])?;
    for name in [UNKNOWN[1], DISABLED, FENCED] {
        let (_, answer) = ask(name)?;
        ensure!(answer == expected, "{name}: {answer:?}, not {expected:?}");
    }
    Ok(())
}

/// From the startup packet to the whole answer.
fn ask(router: &Router, transport: Transport, name: &str) -> anyhow::Result<(f64, String)> {
    let mut wire = Wire::connect_tcp(router.address())?;
    if transport == Transport::ServerName {
        return greet(wire, name);
    }
    if transport == Transport::Tls {
        wire.send(&first_packet(SSL_REQUEST, b""))?;
        ensure!(wire.receive(1)? == b"S", "no TLS");
        wire = wire.secure(trust::client(Some("localhost"), None)?)?;
    }
    let begin = Instant::now();
    let parameters = [("user", name), ("database", name)];
    wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
    let answer = wire.message()?;
    let took = begin.elapsed().as_secs_f64();
    ensure!(answer.sqlstate().as_deref() == Some("28000"), "{answer:?}");
    let body = String::from_utf8(answer.body)?.replace(name, "<name>");
    Ok((took, body))
}

/// From the ClientHello to the first byte of the answer.
fn greet(mut wire: Wire, name: &str) -> anyhow::Result<(f64, String)> {
    wire.send(&first_packet(SSL_REQUEST, b""))?;
    ensure!(wire.receive(1)? == b"S", "no TLS");
    let mut hello = Vec::new();
    trust::client(Some(&format!("{name}.{DOMAIN}")), None)?.write_tls(&mut hello)?;
    let begin = Instant::now();
    wire.send(&hello)?;
    let first = wire.peek()?;
    let took = begin.elapsed().as_secs_f64();
    ensure!(first == HANDSHAKE, "no ServerHello: {first}");
    Ok((took, String::new()))
}

/// `ask` with each name, by turns: the answer, and how many seconds it took.
fn measure(ask: impl Fn(&str) -> anyhow::Result<(f64, String)>) -> anyhow::Result<()> {
    let mut lot = SmallRng::seed_from_u64(7);
    let names = [UNKNOWN[0], UNKNOWN[1], DISABLED, FENCED];
    let mut turns = names.repeat(TRIES);
    turns.shuffle(&mut lot);
    let (_, expected) = ask(UNKNOWN[0])?;
    let mut took = names.map(|_| Vec::with_capacity(TRIES));
    for name in turns {
        let (seconds, answer) = ask(name)?;
        ensure!(answer == expected, "{name}: {answer:?}, not {expected:?}");
        let kind = names.iter().position(|known| *known == name);
        took[kind.context("a name")?].push(seconds);
    }
    let [first, second, disabled, fenced] = took;
    let mut unknown = [first, second].concat();
    let mut same = Distance::default();
    for _ in 0..SPLITS {
        unknown.shuffle(&mut lot);
        let (left, right) = unknown.split_at(TRIES);
        same = same.or_further(Distance::between(left, right));
    }
    for (kind, sample) in [("disabled", disabled), ("not allowed", fenced)] {
        let distance = Distance::between(&unknown[..TRIES], &sample);
        ensure!(
            distance.medians <= same.medians * SLACK && distance.steps <= same.steps * SLACK,
            "{kind} shows: {distance:?}; the same thing is apart at most {same:?}"
        );
    }
    Ok(())
}

/// How far two samples of one size are apart.
#[derive(Debug, Clone, Copy, Default)]
struct Distance {
    /// Between their medians, in seconds.
    medians: f64,
    /// Between their distribution functions, at the most (Kolmogorov and Smirnov).
    steps: f64,
}

impl Distance {
    fn between(left: &[f64], right: &[f64]) -> Self {
        let sorted = |sample: &[f64]| {
            let mut sample = sample.to_vec();
            sample.sort_by(f64::total_cmp);
            sample
        };
        let (left, right) = (sorted(left), sorted(right));
        let share = |sample: &[f64], at: f64| {
            sample.partition_point(|value| *value <= at) as f64 / sample.len() as f64
        };
        let steps = left.iter().chain(&right);
        let steps = steps.map(|at| (share(&left, *at) - share(&right, *at)).abs());
        Self {
            medians: (left[left.len() / 2] - right[right.len() / 2]).abs(),
            steps: steps.fold(0.0, f64::max),
        }
    }

    fn or_further(self, other: Self) -> Self {
        Self {
            medians: self.medians.max(other.medians),
            steps: self.steps.max(other.steps),
        }
    }
}
