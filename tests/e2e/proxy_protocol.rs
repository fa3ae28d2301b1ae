//! The PROXY protocol: whose word counts for where a client is, and whose does not.

use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::first_packet;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("a_trusted_proxys_word_counts_everywhere", a_trusted_word),
    ("an_untrusted_header_is_garbage", an_untrusted_header),
    ("a_trusted_proxy_must_send_one", a_missing_header),
    ("a_cancel_comes_through_a_proxy", a_cancel),
    ("health_checks_are_silent", health_checks),
    ("access_lists_look_at_the_client", access_lists),
    ("trust_in_everybody_is_told", trust_in_everybody),
];

/// The proxy of these scenarios, and a client of it.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const CLIENT: &str = "192.0.2.7";
const VERSION_1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 5432\r\n";

const LIMIT: Duration = Duration::from_secs(10);

const SSL_REQUEST: u32 = 1234 << 16 | 5679;

/// The same in version 2, with something behind the addresses.
fn version_2() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x15, 0x38];
    let tlv = b"\x04\x00\x03pad";
    let length = (addresses.len() + tlv.len()) as u8;
    let fixed = [0x21, 0x11, 0, length];
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &fixed, &addresses, tlv].concat()
}

fn router(stage: &Stage, name: &str) -> anyhow::Result<Router> {
    let trusted = format!("{PROXY}/32");
    let arguments = ["--proxy-protocol-from", &trusted];
    stage.installation()?.second_router_with(name, &arguments)
}

fn through_proxy(router: &Router, header: &[u8]) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_from(PROXY, router.address())?;
    wire.send(header)?;
    Ok(wire)
}

fn a_trusted_word(stage: &Stage) -> anyhow::Result<()> {
    let (router, alpha) = (router(stage, "proxied")?, stage.alpha()?);
    for header in [VERSION_1, &version_2()] {
        let mut wire = through_proxy(&router, header)?;
        wire.log_in(alpha)?;
        let told = wire.query_value("show pgs.client_addr")?;
        ensure!(told == CLIENT, "{told}");
        let told = wire.query_value("show pgs.client_port")?;
        ensure!(told == "4711", "{told}");
        let sessions = router.sessions(&alpha.user)?;
        let shown: Vec<_> = sessions.iter().map(|session| &session["client"]).collect();
        ensure!(shown == [&format!("{CLIENT}:4711")], "{shown:?}");
        drop(wire);
        process::eventually("the session ends", Duration::from_secs(5), || {
            Ok(router.sessions(&alpha.user)?.is_empty().then_some(()))
        })?;
    }
    let log = router.log();
    ensure!(log.contains(&format!("client={CLIENT}:4711")), "{log}");
    // What is refused is logged with the client's address, and not the proxy's.
    let mut wire = through_proxy(&router, VERSION_1)?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", "nobody-here")]))?;
    ensure!(wire.message()?.sqlstate().as_deref() == Some("28000"));
    ensure!(
        router.log().contains(&format!("address={CLIENT}:4711")),
        "{}",
        router.log()
    );
    // Before SSLRequest, and byte by byte.
    let mut wire = Wire::connect_from(PROXY, router.address())?;
    for byte in version_2() {
        wire.send(&[byte])?;
    }
    wire.send(&first_packet(SSL_REQUEST, b""))?;
    ensure!(wire.receive(1)? == b"N");
    wire.log_in(alpha)?;
    // In one piece with the startup packet.
    let mut wire = Wire::connect_from(PROXY, router.address())?;
    let startup = startup_packet(PROTOCOL_3_0, &[("user", &alpha.user)]);
    wire.send(&[VERSION_1, &startup].concat())?;
    let greeting = wire.authenticate(&alpha.password)?;
    ensure!(greeting.refused().is_none(), "{greeting:?}");
    Ok(())
}

fn malformed(router: &Router) -> anyhow::Result<u64> {
    let status = router.status()?;
    status["counters"]["connections_malformed"]
        .as_u64()
        .context("no such counter")
}

fn an_untrusted_header(stage: &Stage) -> anyhow::Result<()> {
    let (router, alpha) = (router(stage, "spoofed")?, stage.alpha()?);
    let startup = startup_packet(PROTOCOL_3_0, &[("user", &alpha.user)]);
    for header in [VERSION_1, &version_2()] {
        let before = malformed(&router)?;
        let mut wire = Wire::connect_tcp(router.address())?;
        wire.send(&[header, &startup].concat())?;
        let (answer, closed) = wire.receive_until_quiet(Duration::from_secs(3))?;
        ensure!(
            answer.is_empty() && closed,
            "answered {answer:?}, closed: {closed}"
        );
        ensure!(malformed(&router)? == before + 1);
    }
    ensure!(!router.log().contains(CLIENT), "{}", router.log());
    // Without one the client gets in, as who it is.
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(alpha)?;
    ensure!(wire.query_value("show pgs.client_addr")? == "127.0.0.1");
    // A router that trusts nobody treats the proxy like everybody.
    let mut wire = Wire::connect_from(PROXY, stage.router()?.address())?;
    wire.send(&[VERSION_1, &startup].concat())?;
    let (answer, closed) = wire.receive_until_quiet(Duration::from_secs(3))?;
    ensure!(
        answer.is_empty() && closed,
        "answered {answer:?}, closed: {closed}"
    );
    Ok(())
}

fn a_missing_header(stage: &Stage) -> anyhow::Result<()> {
    let (router, alpha) = (router(stage, "headless")?, stage.alpha()?);
    let startup = startup_packet(PROTOCOL_3_0, &[("user", &alpha.user)]);
    let twice = [VERSION_1, VERSION_1].concat();
    for first in [
        &startup[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 nonsense\r\n",
    ] {
        let mut wire = through_proxy(&router, first)?;
        let refused = wire.message()?;
        ensure!(
            refused.sqlstate().as_deref() == Some("08P01"),
            "{refused:?}"
        );
        let message = refused.field(b'M').unwrap_or_default();
        ensure!(message.contains("PROXY protocol"), "{message}");
    }
    // One header a connection.
    let (answer, closed) =
        through_proxy(&router, &twice)?.receive_until_quiet(Duration::from_secs(3))?;
    ensure!(
        answer.is_empty() && closed,
        "answered {answer:?}, closed: {closed}"
    );
    Ok(())
}

fn a_cancel(stage: &Stage) -> anyhow::Result<()> {
    let (router, alpha) = (router(stage, "cancelling")?, stage.alpha()?);
    let mut wire = through_proxy(&router, VERSION_1)?;
    let key = wire.log_in_with(PROTOCOL_3_0, alpha)?.key()?;
    wire.send_query("select pg_sleep(30)")?;
    std::thread::sleep(Duration::from_millis(200));
    let mut cancel = through_proxy(&router, &version_2())?;
    cancel.send(&key.cancel_request())?;
    ensure!(cancel.receive_to_end()?.is_empty());
    let states: Vec<_> = wire
        .until_ready()?
        .iter()
        .filter_map(Message::sqlstate)
        .collect();
    ensure!(states == ["57014"], "{states:?}");
    Ok(())
}

fn health_checks(stage: &Stage) -> anyhow::Result<()> {
    let router = router(stage, "checked")?;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    for check in [&b""[..], local, b"PROXY UNKNOWN\r\n"] {
        let mut wire = through_proxy(&router, check)?;
        wire.shut_down_writing()?;
        ensure!(wire.receive_to_end()?.is_empty(), "{check:?} was answered");
    }
    let status = router.status()?;
    ensure!(status["counters"]["connections_silent"] == 3, "{status}");
    ensure!(malformed(&router)? == 0, "{status}");
    // Without an address of its own the proxy's counts.
    let mut wire = through_proxy(&router, local)?;
    wire.log_in(stage.alpha()?)?;
    ensure!(wire.query_value("show pgs.client_addr")? == PROXY.to_string());
    Ok(())
}

fn access_lists(stage: &Stage) -> anyhow::Result<()> {
    let installation = stage.installation()?;
    let tenant = installation.create_tenant("behind")?;
    let router = router(stage, "listing")?;
    router.pgs(&["set", tenant.id(), "allow=192.0.2.0/24"])?;
    through_proxy(&router, VERSION_1)?.log_in(tenant.login())?;
    let elsewhere = b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 5432\r\n";
    let refused = [
        through_proxy(&router, elsewhere)?,
        through_proxy(&router, b"PROXY UNKNOWN\r\n")?,
        Wire::connect_tcp(router.address())?,
    ];
    for mut wire in refused {
        wire.send(&startup_packet(PROTOCOL_3_0, &[("user", tenant.id())]))?;
        let answer = wire.message()?;
        ensure!(answer.sqlstate().as_deref() == Some("28000"), "{answer:?}");
    }
    Ok(())
}

/// By a file, and by the command line. It serves all the same.
fn trust_in_everybody(stage: &Stage) -> anyhow::Result<()> {
    let (installation, alpha) = (stage.installation()?, stage.alpha()?);
    let text = "[proxy_protocol]\ntrusted = ['10.0.0.0/8', '0.0.0.0/0']\n";
    let filed = installation.configured_router("trusting", text)?;
    let file = installation.scratch("trusting.toml");
    let path = file.to_string_lossy();
    let told = |text: &str| text.contains("trusts everybody (0.0.0.0/0)");
    let checked = filed.command().args(["config", "check", &path]).output()?;
    ensure!(checked.status.success(), "{checked:?}");
    ensure!(
        told(&String::from_utf8_lossy(&checked.stderr)),
        "{checked:?}"
    );
    let json = filed.pgs_json(&["config", "check", &path])?;
    ensure!(told(&json["cautions"].to_string()), "{json}");
    ensure!(told(&filed.log()), "{}", filed.log());
    let doctor = filed.pgs_json(&["doctor", "--config", &path])?;
    for name in ["configuration", "router's configuration"] {
        let checks = doctor["checks"].as_array().context("no checks")?;
        let check = checks.iter().find(|check| check["name"] == name);
        let check = check.with_context(|| format!("no {name}: {doctor}"))?;
        let says = check["verdict"] == "warning" && told(&check["hint"].to_string());
        ensure!(says, "{check}");
    }
    through_proxy(&filed, VERSION_1)?.log_in(alpha)?;
    fs::write(&file, "[proxy_protocol]\ntrusted = ['10.0.0.0/8']\n")?;
    filed.pgs(&["config", "reload"])?;
    let status = filed.status()?;
    let none = status["configuration"]["cautions"]
        .as_array()
        .map(Vec::is_empty);
    ensure!(none == Some(true), "{status}");
    fs::write(&file, text)?;
    let told_again = process::run(filed.command().args(["config", "reload"]), LIMIT)?;
    ensure!(told(&told_again.stderr), "{told_again:?}");
    ensure!(
        filed.log().matches("trusts everybody").count() == 2,
        "{}",
        filed.log()
    );

    let said = ["--proxy-protocol-from", "::/0"];
    let said = installation.second_router_with("trusting-said", &said)?;
    let status = said.status()?["configuration"].to_string();
    ensure!(status.contains("trusts everybody (::/0)"), "{status}");
    Ok(())
}
