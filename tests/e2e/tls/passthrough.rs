//! TLS that a tenant's own server ends.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::installation::Installation;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::first_packet;
use pgs_tests::login::startup_packet;
use pgs_tests::process::eventually;
use pgs_tests::stage::Stage;
use pgs_tests::trust;
use pgs_tests::trust::ALPN;
use pgs_tests::trust::Issued;
use pgs_tests::wire::Wire;
use sha2::Digest as _;
use sha2::Sha256;

use super::DOMAIN;
use super::Ground;
use super::NOTICED;
use super::SSL_REQUEST;
use super::TENANT;
use super::install;
use super::serve_as_it_is;
use super::with_tls;

/// Large enough that every buffer on the way overflows.
const BULK_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn host() -> String {
    format!("{TENANT}.{DOMAIN}")
}

/// Gives the tenant's server a certificate and lets it end the TLS of its clients.
pub(super) fn pass_through(installation: &Installation) -> anyhow::Result<Issued> {
    let own = trust::issue(&installation.scratch("own"), &[&host()])?;
    install(installation, &["--tenant", TENANT], &own)?;
    let router = installation.router();
    router.pgs(&["set", TENANT, "tls=passthrough"])?;
    router.pgs(&["restart", TENANT])?;
    Ok(own)
}

pub(super) fn with_passthrough(
    stage: &Stage,
    scenario: impl FnOnce(&Ground<'_>, &Issued) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        let own = pass_through(ground.installation)?;
        scenario(ground, &own)
    })
}

pub(super) fn the_servers_own_tls(stage: &Stage) -> anyhow::Result<()> {
    with_passthrough(stage, |ground, own| {
        certificates(ground, own).context("certificates")?;
        login(ground).context("login")?;
        fragments(ground).context("a ClientHello in pieces")?;
        ends(ground).context("ends")
    })
}

/// Each name gets the certificate of who ends its TLS.
fn certificates(ground: &Ground<'_>, own: &Issued) -> anyhow::Result<()> {
    let ours = &ground.issued;
    let nobody = format!("nobody.{DOMAIN}");
    let upper = host().to_uppercase();
    for (name, expected) in [
        (Some(host().as_str()), own),
        (Some(&upper), own),
        (Some(&nobody), ours),
        (Some(DOMAIN), ours),
        (Some("localhost"), ours),
        (None, ours),
    ] {
        ensure!(ground.shown(name)? == expected.der.as_ref(), "{name:?}");
    }
    let direct = trust::client(Some(&host()), Some(ALPN))?;
    let wire = ground.connect()?.secure(direct)?;
    let shown = wire.tls()?.peer_certificates().unwrap_or_default();
    ensure!(shown.first() == Some(&own.der), "direct");
    // The rule of the server itself: without ALPN nothing may begin with a handshake.
    let without = trust::client(Some(&host()), None)?;
    let refused = ground
        .connect()?
        .secure(without)
        .and_then(|mut wire| wire.log_in(ground.tenant.login()));
    ensure!(refused.is_err(), "direct TLS without ALPN was let in");
    Ok(())
}

/// What the server itself says, and every byte of it.
fn login(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut wire = ground.named()?;
    let greeting = wire.log_in(ground.tenant.login())?;
    let offered = &greeting.messages[0].body;
    ensure!(
        offered.windows(5).any(|part| part == b"-PLUS"),
        "no channel to bind to: {offered:?}"
    );
    let version = "select version from pg_stat_ssl where pid = pg_backend_pid()";
    ensure!(wire.query_value(version)? == "TLSv1.3");
    let sessions = ground.router.sessions(TENANT)?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    ensure!(sessions[0]["path"] == "passthrough", "{sessions:?}");
    ensure!(sessions[0]["user"].is_null(), "{sessions:?}");
    let text: String = (0..BULK_BYTES)
        .map(|at| char::from(b'a' + (at * 7 % 26) as u8))
        .collect();
    let expected: String = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let sent = wire.query_value(&format!("select encode(sha256('{text}'), 'hex')"))?;
    ensure!(sent == expected, "what the server got is not what was sent");
    let last = BULK_BYTES - 1;
    let sql = format!(
        "select string_agg(chr(97 + g * 7 % 26), '' order by g) from generate_series(0, {last}) g"
    );
    ensure!(
        wire.query_value(&sql)? == text,
        "what came is not what the server sent"
    );
    let counted = &ground.router.sessions(TENANT)?[0];
    for direction in ["bytes_to_backend", "bytes_to_client"] {
        let bytes = counted[direction].as_u64().unwrap_or(0);
        ensure!(bytes > BULK_BYTES as u64, "{direction}: {bytes}");
    }
    let mut wire = ground.named()?;
    let wrong = [("user", TENANT), ("database", TENANT)];
    wire.send(&startup_packet(PROTOCOL_3_0, &wrong))?;
    let refused = wire.authenticate("not the password")?.refused();
    ensure!(refused.as_deref() == Some("28P01"), "{refused:?}");
    // The superuser works inside the container alone.
    let mut wire = ground.named()?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", "postgres")]))?;
    let refused = wire.authenticate("")?.refused();
    ensure!(refused.as_deref() == Some("28000"), "{refused:?}");
    Ok(())
}

/// In as many records and packets as there can be.
fn fragments(ground: &Ground<'_>) -> anyhow::Result<()> {
    let mut session = trust::client(Some(&host()), None)?;
    let mut hello = Vec::new();
    session.write_tls(&mut hello)?;
    let mut wire = ground.granted()?;
    for byte in &hello[5..] {
        wire.send(&[0x16, 0x03, 0x01, 0x00, 0x01, *byte])?;
    }
    // The server puts it together, and answers in a record of its own.
    ensure!(wire.peek()? == 0x16, "no handshake");
    Ok(())
}

pub(super) fn gone(ground: &Ground<'_>) -> anyhow::Result<()> {
    eventually("the session is gone", Duration::from_secs(5), || {
        Ok(ground.router.sessions(TENANT)?.is_empty().then_some(()))
    })
}

pub(super) fn log_in(ground: &Ground<'_>) -> anyhow::Result<Wire> {
    let mut wire = ground.named()?;
    wire.log_in(ground.tenant.login())?;
    Ok(wire)
}

fn ends(ground: &Ground<'_>) -> anyhow::Result<()> {
    gone(ground).context("those before")?;
    let mut wire = log_in(ground)?;
    wire.send_message(b'X', b"")?;
    ensure!(wire.receive_to_end()?.is_empty());
    gone(ground).context("Terminate")?;
    log_in(ground)?.reset()?;
    gone(ground).context("reset")?;
    let mut wire = log_in(ground)?;
    wire.send_query("select pg_terminate_backend(pg_backend_pid())")?;
    let states = told(&mut wire)?;
    ensure!(states == ["57P01"], "{states:?}");
    drop(wire);
    gone(ground).context("the backend's end")?;
    // The server says why, within its TLS; then the router ends what is left.
    let mut idle = log_in(ground)?;
    ground.router.pgs(&["disable", TENANT])?;
    let states = told(&mut idle)?;
    ensure!(states == ["57P01"], "{states:?}");
    gone(ground).context("disable")
}

/// The errors that come until the connection is closed.
fn told(wire: &mut Wire) -> anyhow::Result<Vec<String>> {
    let mut states = Vec::new();
    while let Some(message) = wire.message_or_end()? {
        states.extend(message.sqlstate());
    }
    Ok(states)
}

/// What a client is told that does not reach the server: SQLSTATE and message.
pub(super) fn refused(mut wire: Wire) -> anyhow::Result<(String, String)> {
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", TENANT)]))?;
    let message = wire.message()?;
    let state = message.sqlstate().context("not refused")?;
    Ok((state, message.field(b'M').unwrap_or_default()))
}

pub(super) fn what_does_not_get_through(stage: &Stage) -> anyhow::Result<()> {
    with_passthrough(stage, |ground, own| {
        let only = "TLS up to the database server itself is required";
        for (way, wire) in [
            ("in the clear", ground.connect()?),
            ("by its user", ground.asked()?),
        ] {
            let (state, message) = refused(wire)?;
            ensure!(
                state == "28000" && message == only,
                "{way}: {state} {message}"
            );
        }
        ground.router.pgs(&["set", TENANT, "connections_max=1"])?;
        let first = log_in(ground)?;
        // It is told so, behind a certificate of the router's.
        ensure!(ground.shown(Some(&host()))? == ground.issued.der.as_ref());
        let (state, message) = refused(ground.named()?)?;
        ensure!(state == "53300", "{state} {message}");
        drop(first);
        gone(ground)?;
        drop(log_in(ground)?);
        limited(ground)?;
        ground.router.pgs(&["stop", TENANT])?;
        let (state, message) = refused(ground.named()?)?;
        ensure!(state == "57P03", "{state} {message}");
        ground.router.pgs(&["start", TENANT])?;
        ensure!(ground.shown(Some(&host()))? == own.der.as_ref());
        gone(ground)?;
        drop(log_in(ground)?);
        // To whom it is closed, it is as if it were not there.
        ground.router.pgs(&["set", TENANT, "allow=192.0.2.0/24"])?;
        as_nobody(ground).context("an address that is not allowed")?;
        ground.router.pgs(&["set", TENANT, "--unset", "allow"])?;
        drop(log_in(ground)?);
        ground.router.pgs(&["disable", TENANT])?;
        as_nobody(ground).context("disabled")
    })
}

/// The tenant gets what one that does not exist gets.
fn as_nobody(ground: &Ground<'_>) -> anyhow::Result<()> {
    let nobody = format!("nobody.{DOMAIN}");
    for name in [&host(), &nobody] {
        let shown = ground.shown(Some(name))?;
        ensure!(shown == ground.issued.der.as_ref(), "{name}");
        let wire = ground.granted()?.secure(trust::client(Some(name), None)?)?;
        let (state, message) = refused(wire)?;
        ensure!(
            state == "28000" && message.starts_with("no access"),
            "{name}: {state} {message}"
        );
    }
    Ok(())
}

/// What is begun too often is not begun there.
fn limited(ground: &Ground<'_>) -> anyhow::Result<()> {
    let rate = ["connection_rate_per_minute=1", "connection_burst=1"];
    ground.router.pgs(&[&["set", TENANT][..], &rate].concat())?;
    drop(log_in(ground)?);
    let (state, message) = refused(ground.named()?)?;
    ensure!(state == "53300", "{state} {message}");
    let unset = [
        "--unset",
        "connection_rate_per_minute",
        "--unset",
        "connection_burst",
    ];
    ground
        .router
        .pgs(&[&["set", TENANT][..], &unset].concat())?;
    Ok(())
}

pub(super) fn without_a_certificate_here(stage: &Stage) -> anyhow::Result<()> {
    let installation = Installation::start(stage.path())?;
    let tenant = installation.create_tenant(TENANT)?;
    let router = serve_as_it_is(&installation, "tls-run", &[])?;
    let ask = || -> anyhow::Result<_> {
        let mut wire = Wire::connect_tcp(router.address())?;
        wire.send(&first_packet(SSL_REQUEST, b""))?;
        let answer = wire.receive(1)?;
        Ok((answer, wire))
    };
    ensure!(ask()?.0 == b"N", "TLS is offered, and there is none");
    pass_through(&installation)?;
    let wire = eventually("TLS is offered", NOTICED, || {
        let (answer, wire) = ask()?;
        Ok((answer == b"S").then_some(wire))
    })?;
    let mut wire = wire.secure(trust::client(Some(&host()), None)?)?;
    wire.log_in(tenant.login())?;
    // Enough to require it of everybody.
    drop(serve_as_it_is(
        &installation,
        "required-run",
        &["--tls-required"],
    )?);
    // Who wants something else gets an alert, not a connection that hangs.
    let (_, wire) = ask()?;
    let failed = wire.secure(trust::client(Some("localhost"), None)?).err();
    let failed = format!("{:#}", failed.context("a handshake without a certificate")?);
    ensure!(failed.contains("AccessDenied"), "{failed}");
    router.pgs(&["disable", TENANT])?;
    eventually("TLS is offered no more", NOTICED, || {
        Ok((ask()?.0 == b"N").then_some(()))
    })
}
