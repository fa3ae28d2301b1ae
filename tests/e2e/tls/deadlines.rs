//! Clients that are slow before, in and after the handshake.

use std::fs;

use anyhow::ensure;
use pgs_tests::login::first_packet;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::trust;
use pgs_tests::trust::ALPN;
use pgs_tests::wire::Wire;

use super::SSL_REQUEST;
use super::serve_as_it_is;
use super::with_tls;
use crate::deadlines::ARRIVAL;
use crate::deadlines::CONFIGURATION;
use crate::deadlines::Slow;
use crate::deadlines::counted;
use crate::deadlines::ensure_closed_in_time;

pub(super) fn arrivals(stage: &Stage) -> anyhow::Result<()> {
    with_tls(stage, &[], |ground| {
        let file = ground.installation.scratch("deadlines.toml");
        fs::write(&file, CONFIGURATION)?;
        let arguments = ["--config", &file.to_string_lossy()];
        let router = serve_as_it_is(ground.installation, "deadlines", &arguments)?;
        let in_clear = || Wire::connect_tcp(router.address());
        let mut sessions = [in_clear()?, secured(&router)?];
        for session in &mut sessions {
            session.log_in(ground.tenant.login())?;
        }
        let hello = client_hello()?;
        let half = &hello[..hello.len() / 2];
        let slow = |name, begin| Slow {
            name,
            begin,
            drip: Vec::new(),
            told: b"",
        };
        let clients = [
            slow(
                "half a ClientHello",
                Box::new(|| {
                    let mut wire = in_clear()?;
                    wire.send(half)?;
                    Ok(wire)
                }),
            ),
            slow("silent after S", Box::new(|| granted(&router))),
            slow(
                "half a ClientHello after S",
                Box::new(|| {
                    let mut wire = granted(&router)?;
                    wire.send(half)?;
                    Ok(wire)
                }),
            ),
            slow(
                "silent in the handshake",
                Box::new(|| {
                    let mut wire = granted(&router)?;
                    wire.send(&hello)?;
                    // The server's part of it.
                    wire.receive_until_quiet(ARRIVAL / 4)?;
                    Ok(wire)
                }),
            ),
            slow("silent after the handshake", Box::new(|| secured(&router))),
            Slow {
                drip: b"\0\0\x07\xd0\0\x03\0\0user\0".to_vec(),
                ..slow(
                    "one byte at a time, encrypted",
                    Box::new(|| secured(&router)),
                )
            },
        ];
        ensure_closed_in_time(&clients, ARRIVAL)?;
        let failed = counted(&router, "tls_handshakes_failed")?;
        ensure!(failed == 4, "{failed} handshakes were counted");
        let malformed = counted(&router, "connections_malformed")?;
        ensure!(malformed == 2, "{malformed} packets were counted");
        for session in &mut sessions {
            let value = session.query_value("select 1")?;
            ensure!(value == "1", "a session was ended too");
        }
        Ok(())
    })
}

/// What a client begins a handshake with.
fn client_hello() -> anyhow::Result<Vec<u8>> {
    let mut hello = Vec::new();
    trust::client(Some("localhost"), Some(ALPN))?.write_tls(&mut hello)?;
    Ok(hello)
}

fn granted(router: &Router) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.send(&first_packet(SSL_REQUEST, b""))?;
    let answer = wire.receive(1)?;
    ensure!(answer == b"S", "SSLRequest was answered {answer:?}");
    Ok(wire)
}

fn secured(router: &Router) -> anyhow::Result<Wire> {
    granted(router)?.secure(trust::client(Some("localhost"), None)?)
}
