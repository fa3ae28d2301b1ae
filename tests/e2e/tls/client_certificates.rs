//! Certificates that clients show, where the router ends the TLS.

use std::fs;
use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::first_packet;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::trust;
use pgs_tests::trust::Authority;
use pgs_tests::trust::ClientIdentity;
use pgs_tests::wire::Wire;
use rustls::SupportedProtocolVersion;
use rustls::version::TLS12;
use rustls::version::TLS13;

use super::Ground;
use super::NOTICED;
use super::SSL_REQUEST;
use super::TENANT;
use super::libpq::CLIENT_LIMIT;
use super::libpq::connection;
use super::with_tls;

/// Every client that could come.
struct Clients {
    authority: Authority,
    own: ClientIdentity,
    other_name: ClientIdentity,
    expired: ClientIdentity,
    foreign: ClientIdentity,
}

impl Clients {
    fn make(ground: &Ground<'_>) -> anyhow::Result<Self> {
        let at = |name: &str| ground.installation.scratch("clients").join(name);
        let authority = Authority::make(&at("authority"))?;
        let stranger = Authority::make(&at("stranger"))?;
        Ok(Self {
            own: authority.sign(&at("own"), TENANT, 1)?,
            other_name: authority.sign(&at("other"), "somebody", 1)?,
            expired: authority.sign(&at("expired"), TENANT, -1)?,
            foreign: stranger.sign(&at("foreign"), TENANT, 1)?,
            authority,
        })
    }
}

/// What a client gets: `let in`, or the refusal's SQLSTATE and message.
fn outcome(
    ground: &Ground<'_>,
    login: &Login,
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<&ClientIdentity>,
) -> anyhow::Result<String> {
    let session = trust::client_that(Some("localhost"), None, versions, identity)?;
    in_words(ground.granted()?.secure(session)?, login)
}

fn in_words(mut wire: Wire, login: &Login) -> anyhow::Result<String> {
    let parameters = [("user", login.user.as_str()), ("database", &login.database)];
    wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
    let greeting = wire.authenticate(&login.password)?;
    Ok(match greeting.refused() {
        None => "let in".to_owned(),
        Some(state) => {
            let message = greeting.messages.last().and_then(|last| last.field(b'M'));
            format!("{state} {}", message.unwrap_or_default())
        }
    })
}

fn set(ground: &Ground<'_>, value: &str, authority: &Authority) -> anyhow::Result<()> {
    let policy = format!("client_certificates={value}");
    let file = format!("client_ca={}", authority.certificate.display());
    ground.router.pgs(&["set", TENANT, &policy, &file])?;
    Ok(())
}

const IN: &str = "let in";
const REQUIRED: &str = "28000 connection requires a valid client certificate";
const ANOTHERS: &str = "28000 certificate authentication failed for user \"sealed\"";

pub(super) fn each_policy_and_each_client(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        let clients = Clients::make(ground)?;
        let Clients {
            authority,
            own,
            other_name,
            expired,
            foreign,
        } = &clients;
        let login = ground.tenant.login();
        let shown = [
            None,
            Some(own),
            Some(other_name),
            Some(expired),
            Some(foreign),
        ];
        for (policy, expected) in [
            ("off", [IN, IN, IN, IN, IN]),
            ("optional", [IN, IN, IN, REQUIRED, REQUIRED]),
            ("required", [REQUIRED, IN, IN, REQUIRED, REQUIRED]),
            ("verify-user", [REQUIRED, IN, ANOTHERS, REQUIRED, REQUIRED]),
        ] {
            set(ground, policy, authority)?;
            is_asked(ground, policy != "off").with_context(|| policy.to_owned())?;
            for versions in [[&TLS13], [&TLS12]] {
                for (identity, expected) in shown.iter().zip(expected) {
                    let found = outcome(ground, login, &versions, *identity)?;
                    ensure!(
                        found == expected,
                        "{policy}, {versions:?}, {identity:?}: {found}, not {expected}"
                    );
                }
            }
        }
        in_the_clear(ground)?;
        another_tenant(ground, &clients).context("another tenant")?;
        another_authority(ground, &clients).context("another authority")
    })
}

/// From when on clients are asked for a certificate, or no more.
fn is_asked(ground: &Ground<'_>, expected: bool) -> anyhow::Result<()> {
    process::eventually("clients are asked, or not", NOTICED, || {
        let mut wire = ground.granted()?;
        let mut session = trust::client_that(Some("localhost"), None, &[&TLS12], None)?;
        let mut hello = Vec::new();
        session.write_tls(&mut hello)?;
        wire.send(&hello)?;
        // Of TLS 1.2 the server's first flight is in the clear; CertificateRequest is message 13,
        // and the last one but for ServerHelloDone.
        let flight = wire
            .receive_until_quiet(std::time::Duration::from_millis(100))?
            .0;
        let asked = flight.windows(4).any(|four| four[0] == 13 && four[1] == 0);
        let asked = asked && handshake_messages(&flight).contains(&13);
        Ok((asked == expected).then_some(()))
    })
}

/// Types of the handshake messages in records that are not encrypted.
fn handshake_messages(records: &[u8]) -> Vec<u8> {
    let (mut messages, mut rest) = (Vec::new(), records);
    while let [0x16, _, _, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        messages.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    let (mut types, mut rest) = (Vec::new(), &messages[..]);
    while let [kind, high, middle, low, tail @ ..] = rest {
        types.push(*kind);
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        rest = &tail[length.min(tail.len())..];
    }
    types
}

fn in_the_clear(ground: &Ground<'_>) -> anyhow::Result<()> {
    let found = in_words(ground.connect()?, ground.tenant.login())?;
    ensure!(found == REQUIRED, "in the clear: {found}");
    Ok(())
}

/// It has no wish of its own, so that whatever is shown is not looked at.
fn another_tenant(ground: &Ground<'_>, clients: &Clients) -> anyhow::Result<()> {
    let other = ground.installation.create_tenant("open")?;
    for identity in [None, Some(&clients.foreign), Some(&clients.expired)] {
        let found = outcome(ground, other.login(), &[&TLS13], identity)?;
        ensure!(found == IN, "{identity:?}: {found}");
    }
    Ok(())
}

/// A changed file counts at the next login, and a damaged one lets nobody in.
fn another_authority(ground: &Ground<'_>, clients: &Clients) -> anyhow::Result<()> {
    let login = ground.tenant.login();
    let path = &clients.authority.certificate;
    let directory = ground.installation.scratch("clients").join("new");
    let new = Authority::make(&directory)?;
    let newcomer = new.sign(&directory, TENANT, 1)?;
    let both = [fs::read(path)?, fs::read(&new.certificate)?].concat();
    fs::write(path, &both)?;
    for identity in [&clients.own, &newcomer] {
        let found = outcome(ground, login, &[&TLS13], Some(identity))?;
        ensure!(found == IN, "one of two authorities: {found}");
    }
    fs::copy(&new.certificate, path)?;
    let found = outcome(ground, login, &[&TLS13], Some(&clients.own))?;
    ensure!(
        found == REQUIRED,
        "an authority that was taken out: {found}"
    );
    fs::write(path, "nonsense")?;
    let found = outcome(ground, login, &[&TLS13], Some(&newcomer))?;
    ensure!(found.starts_with("58000"), "a damaged file: {found}");
    let file = format!("client_ca={}", path.display());
    let refused = ground.router.pgs(&["set", TENANT, &file]);
    let refused = format!("{:#}", refused.err().context("a damaged file was taken")?);
    ensure!(refused.contains("client_ca"), "{refused}");
    Ok(())
}

/// Psql with a certificate in files, as people have it.
pub(super) fn with_libpq(stage: &Stage) -> anyhow::Result<()> {
    if Command::new("psql").arg("--version").output().is_err() {
        return Skip::because("there is no `psql`");
    }
    with_tls(stage, &[], |ground| {
        let clients = Clients::make(ground)?;
        set(ground, "verify-user", &clients.authority)?;
        is_asked(ground, true)?;
        let run = |more: &str| {
            let mut psql = Command::new("psql");
            psql.env("PGPASSWORD", &ground.tenant.login().password)
                .args(["--no-psqlrc", "-At", "-c", "select 40 + 2"])
                .arg(connection(ground, "localhost", more));
            process::run(&mut psql, CLIENT_LIMIT)
        };
        let with = |identity: &ClientIdentity| {
            let (certificate, key) = (identity.certificate.display(), identity.key.display());
            format!("sslmode=require sslcert={certificate} sslkey={key}")
        };
        let printed = run(&with(&clients.own))?.success()?;
        ensure!(printed == "42\n", "{printed}");
        for (more, why) in [
            (
                with(&clients.other_name),
                "certificate authentication failed",
            ),
            (
                with(&clients.foreign),
                "requires a valid client certificate",
            ),
            (
                "sslmode=require sslcert=/nonexistent".to_owned(),
                "requires a valid client certificate",
            ),
            (
                "sslmode=disable".to_owned(),
                "requires a valid client certificate",
            ),
        ] {
            let finished = run(&more)?;
            ensure!(!finished.status.success(), "{more} was let in");
            ensure!(finished.stderr.contains(why), "{more}: {}", finished.stderr);
        }
        // A key is all that a CancelRequest needs: here as with PostgreSQL itself.
        let session = trust::client_that(Some("localhost"), None, &[&TLS13], Some(&clients.own))?;
        let mut wire = ground.granted()?.secure(session)?;
        let key = wire.log_in(ground.tenant.login())?.key()?;
        wire.send_query("select pg_sleep(60)")?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        let mut cancel = ground.connect()?;
        cancel.send(&first_packet(SSL_REQUEST, b""))?;
        ensure!(cancel.receive(1)? == b"S");
        let mut cancel = cancel.secure(trust::client(None, None)?)?;
        cancel.send(&key.cancel_request())?;
        ensure!(cancel.receive_to_end()?.is_empty());
        let states: Vec<_> = wire
            .until_ready()?
            .iter()
            .filter_map(pgs_tests::wire::Message::sqlstate)
            .collect();
        ensure!(states == ["57014"], "{states:?}");
        Ok(())
    })
}
