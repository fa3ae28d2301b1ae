//! Requests, handshakes and server names: what gets TLS, what gets a refusal, what gets nothing.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::first_packet;
use pgs_tests::login::startup_packet;
use pgs_tests::process::eventually;
use pgs_tests::stage::Stage;
use pgs_tests::trust;
use pgs_tests::trust::ALPN;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use super::DOMAIN;
use super::GSSENC_REQUEST;
use super::Ground;
use super::SSL_REQUEST;
use super::TENANT;
use super::with_tls;

pub(super) fn requests_and_handshakes(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        either_way_leads_to_a_session(ground).context("sessions")?;
        alpn(ground).context("ALPN")?;
        injection(ground).context("injection")?;
        an_eager_client(ground).context("an eager ClientHello")?;
        requests_within_tls(ground).context("requests within TLS")?;
        no_handshake(ground).context("no handshake")
    })
}

fn works(wire: &mut Wire, ground: &Ground<'_>) -> anyhow::Result<()> {
    let greeting = wire.log_in(ground.tenant.login())?;
    let offered = greeting
        .messages
        .first()
        .map(|message| message.body.clone());
    let offered = offered.unwrap_or_default();
    // The hop to the server is in the clear: it must not believe in a channel to bind to.
    ensure!(
        !offered.windows(5).any(|part| part == b"-PLUS"),
        "{offered:?}"
    );
    ensure!(wire.query_value("select 1")? == "1");
    Ok(())
}

fn either_way_leads_to_a_session(ground: &Ground<'_>) -> anyhow::Result<()> {
    works(&mut ground.asked()?, ground).context("SSLRequest")?;
    works(&mut ground.direct()?, ground).context("direct")?;
    works(&mut ground.connect()?, ground).context("in the clear")?;
    let mut wire = ground.connect()?;
    wire.send(&first_packet(GSSENC_REQUEST, b""))?;
    ensure!(wire.receive(1)? == b"N");
    wire.send(&first_packet(SSL_REQUEST, b""))?;
    ensure!(wire.receive(1)? == b"S");
    works(&mut wire.secure(trust::client(None, None)?)?, ground).context("after GSSENCRequest")
}

fn alpn(ground: &Ground<'_>) -> anyhow::Result<()> {
    let client = |alpn| trust::client(Some("localhost"), alpn);
    let wire = ground.granted()?.secure(client(Some(ALPN))?)?;
    ensure!(wire.tls()?.alpn_protocol() == Some(ALPN));
    let foreign = client(Some(b"h2"))?;
    let failed = ground.granted()?.secure(foreign).err();
    let failed = format!("{:#}", failed.context("a foreign protocol was agreed on")?);
    ensure!(failed.contains("NoApplicationProtocol"), "{failed}");
    let failed = ground.connect()?.secure(client(Some(b"h2"))?).err();
    ensure!(failed.is_some(), "a foreign protocol was agreed on, direct");
    // The handshake itself may be over for the client by the time the server turns away.
    if let Ok(mut wire) = ground.connect()?.secure(client(None)?) {
        let login = ground.tenant.login();
        ensure!(
            wire.log_in(login).is_err(),
            "direct TLS without ALPN was let in"
        );
    }
    eventually("the log says why", Duration::from_secs(5), || {
        let told = ground.router.log().contains("direct TLS without ALPN");
        Ok(told.then_some(()))
    })
}

/// SQLSTATE of the refusal, after which the connection must be closed.
fn refused(wire: &mut Wire) -> anyhow::Result<Option<String>> {
    let state = wire.message_or_end()?.as_ref().and_then(Message::sqlstate);
    if state.is_some() {
        ensure!(wire.message_or_end()?.is_none(), "open after a refusal");
    }
    Ok(state)
}

fn injection(ground: &Ground<'_>) -> anyhow::Result<()> {
    let request = first_packet(SSL_REQUEST, b"");
    let startup = startup_packet(PROTOCOL_3_0, &[("user", TENANT)]);
    for injected in [&startup[..], &request, b"\0", b"Q"] {
        let mut wire = ground.connect()?;
        wire.send(&[&request[..], injected].concat())?;
        let state = refused(&mut wire)?;
        ensure!(state.as_deref() == Some("08P01"), "{injected:?}: {state:?}");
    }
    Ok(())
}

/// PostgreSQL 17 and later lets a client begin the handshake before it has the answer.
fn an_eager_client(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut session = trust::client(Some("localhost"), None)?;
    let mut hello = Vec::new();
    session.write_tls(&mut hello)?;
    let mut wire = ground.connect()?;
    let request = first_packet(SSL_REQUEST, b"");
    wire.send(&[&request[..], &hello].concat())?;
    ensure!(wire.peek()? == b'S');
    works(&mut wire.secure_behind_answer(session)?, ground)
}

fn requests_within_tls(ground: &Ground<'_>) -> anyhow::Result<()> {
    let (ssl, gss) = (
        first_packet(SSL_REQUEST, b""),
        first_packet(GSSENC_REQUEST, b""),
    );
    for packet in [&ssl, &gss] {
        let mut wire = ground.asked()?;
        wire.send(packet)?;
        ensure!(refused(&mut wire)?.as_deref() == Some("0A000"));
    }
    let mut wire = ground.direct()?;
    for packet in [&ssl, &gss] {
        wire.send(packet)?;
        ensure!(wire.receive(1)? == b"N");
    }
    works(&mut wire, ground)?;
    let mut wire = ground.direct()?;
    wire.send(&ssl)?;
    ensure!(wire.receive(1)? == b"N");
    wire.send(&ssl)?;
    ensure!(refused(&mut wire)?.as_deref() == Some("0A000"));
    let mut wire = ground.asked()?;
    wire.send(b"GET / HTTP/1.1\r\n\r\n")?;
    ensure!(refused(&mut wire)?.is_none());
    // TLS within TLS.
    let mut wire = ground.direct()?;
    wire.send(b"\x16\x03\x01\x00\x05")?;
    ensure!(refused(&mut wire)?.is_none());
    Ok(())
}

fn no_handshake(ground: &Ground<'_>) -> anyhow::Result<()> {
    let startup = startup_packet(PROTOCOL_3_0, &[("user", TENANT)]);
    for instead in [&startup[..], b"\x16\x03\x01\x00\x02\x01\x00", b""] {
        let mut wire = ground.granted()?;
        wire.send(instead)?;
        wire.shut_down_writing()?;
        let (answer, closed) = wire.receive_until_quiet(Duration::from_secs(2))?;
        ensure!(closed, "{instead:?} is waited on");
        // A TLS alert, or nothing; never a word of the protocol in the clear.
        ensure!(
            matches!(answer.first(), None | Some(0x15)),
            "{instead:?}: {answer:?}"
        );
    }
    Ok(())
}

/// What a session gets that asks for a host, as a role, for a database.
fn outcome(ground: &Ground<'_>, host: &str, user: &str) -> anyhow::Result<String> {
    let client = trust::client(Some(host), None)?;
    let mut wire = ground.granted()?.secure(client)?;
    let parameters = [("user", user), ("database", "postgres")];
    wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
    let greeting = wire.authenticate(&ground.tenant.login().password)?;
    Ok(greeting.refused().unwrap_or_else(|| "let in".to_owned()))
}

pub(super) fn server_names(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        let tenant = format!("{TENANT}.{DOMAIN}");
        let nobody = format!("nobody.{DOMAIN}");
        let upper = tenant.to_uppercase();
        let deeper = format!("x.{tenant}");
        let cases = [
            // Neither names a tenant: that the tenant's server asks for a password, the name did.
            (tenant.as_str(), "stranger", "28P01"),
            (&upper, TENANT, "let in"),
            (&tenant, TENANT, "let in"),
            // A name of a tenant that is not there decides, although the user names one.
            (&nobody, TENANT, "28000"),
            ("pg_x.db.test", TENANT, "28000"),
            // Names that say nothing about tenants.
            (DOMAIN, TENANT, "let in"),
            (&deeper, TENANT, "let in"),
            ("sealed.example.org", TENANT, "let in"),
            ("sealed.example.org", "stranger", "28000"),
        ];
        for (host, user, expected) in cases {
            let found = outcome(ground, host, user)?;
            ensure!(
                found == expected,
                "`{user}` at `{host}`: {found}, not {expected}"
            );
        }
        Ok(())
    })
}

pub(super) fn required_for_sessions(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &["--tls-required"], |ground| {
        let refusal = |user| -> anyhow::Result<_> {
            let mut wire = ground.connect()?;
            wire.send(&startup_packet(PROTOCOL_3_0, &[("user", user)]))?;
            Ok(wire.message()?.body)
        };
        let (known, unknown) = (refusal(TENANT)?, refusal("nobody")?);
        ensure!(known == unknown, "the answer tells tenants from others");
        let known = String::from_utf8_lossy(&known).into_owned();
        ensure!(
            known.contains("C28000") && known.contains("TLS is required"),
            "{known}"
        );
        let mut wire = ground.asked()?;
        let key = wire.log_in(ground.tenant.login())?.key()?;
        wire.send_query("select pg_sleep(60)")?;
        std::thread::sleep(Duration::from_millis(300));
        // A key is all that a CancelRequest needs, as with PostgreSQL, encrypted or not.
        let mut cancel = ground.connect()?;
        cancel.send(&key.cancel_request())?;
        ensure!(cancel.receive_to_end()?.is_empty());
        let states: Vec<_> = wire
            .until_ready()?
            .iter()
            .filter_map(Message::sqlstate)
            .collect();
        ensure!(states == ["57014"], "{states:?}");
        std::fs::remove_dir_all(ground.certificates())?;
        let state = ground.installation.scratch("state");
        let run = ground.installation.scratch("refused-run");
        let without = pgs_tests::router::Router::start_with(&state, &run, &["--tls-required"]);
        let error = format!(
            "{:#}",
            without.err().context("it runs without a certificate")?
        );
        ensure!(error.contains("there is no certificate"), "{error}");
        Ok(())
    })
}
