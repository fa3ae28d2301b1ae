//! TLS clients that mean no good.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::first_packet;
use pgs_tests::process;
use pgs_tests::skip::Skip;
use pgs_tests::trust;
use pgs_tests::trust::ALPN;
use rustls::ClientConnection;

use super::ground::Ground;
use super::ground::paced;

const SSL_REQUEST: u32 = 1234 << 16 | 5679;
/// Handshakes cost the router signatures: more a second, and two processors have no other work.
const RATE: u32 = 50;
/// The server's part of a handshake, with a chain of certificates; no session has begun within it.
const HANDSHAKE_BYTES_MAX: usize = 8192;
const OPENSSL_LIMIT: Duration = Duration::from_secs(10);
/// Record types of RFC 8446, section 5.1.
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

fn granted(ground: &Ground<'_>) -> anyhow::Result<TcpStream> {
    let mut stream = ground.connect()?;
    stream.write_all(&first_packet(SSL_REQUEST, b""))?;
    let mut answer = [0];
    stream
        .read_exact(&mut answer)
        .context("the answer to SSLRequest")?;
    ensure!(answer == *b"S", "SSLRequest was answered {answer:?}");
    Ok(stream)
}

fn client() -> anyhow::Result<(ClientConnection, Vec<u8>)> {
    let mut client = trust::client(Some("localhost"), Some(ALPN))?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok((client, hello))
}

/// Everything until the router closes, which it must; a reset ends it too.
fn rest(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(bytes),
        Err(error) => Err(error).context("the router leaves the connection open"),
    }
}

/// A ClientHello, or a part of one, then nothing; every other after the server has answered.
pub(super) fn broken_off(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    paced(RATE, stop, |strike| {
        let (_, hello) = client()?;
        let mut stream = granted(ground)?;
        let part = if strike % 2 == 0 {
            hello.len()
        } else {
            hello.len() / 2
        };
        stream.write_all(&hello[..part])?;
        if strike % 2 == 0 {
            let mut first = [0];
            stream
                .read_exact(&mut first)
                .context("the answer to a ClientHello")?;
        }
        Ok(())
    })
}

/// TLS 1.2's second handshake within a session, which once was an attack of its own.
///
/// Only openssl still asks for it. The router may go on or end the session, but not agree.
pub(super) fn renegotiation(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    // A line with this letter asks for it; the pause is for the answer. Having been refused,
    // openssl may stay until it is ended.
    let script = format!(
        "(echo R; sleep 0.3) | timeout 1 openssl s_client -msg -starttls postgres -tls1_2 \
         -connect {} -alpn postgresql -servername localhost -legacy_renegotiation",
        ground.address()
    );
    paced(4, stop, |_| {
        let mut openssl = Command::new("sh");
        openssl.args(["-c", &script]);
        let ended = process::run(&mut openssl, OPENSSL_LIMIT)?;
        let said = ended.stdout + &ended.stderr;
        if said.contains("not found") {
            return Skip::because("there is no `openssl`");
        }
        ensure!(
            said.contains("RENEGOTIATING"),
            "openssl did not ask for it: {said}"
        );
        let hellos = said.matches(", ServerHello\n").count();
        ensure!(hellos == 1, "{hellos} handshakes: {said}");
        Ok(())
    })
}

/// Data before the handshake is over: where no session allows it, and as records that simply come.
pub(super) fn early_data(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    paced(RATE, stop, |strike| {
        let (mut client, hello) = client()?;
        ensure!(client.early_data().is_none(), "early data was allowed");
        let mut stream = granted(ground)?;
        let body = [b'x'; 512];
        // Header: type, version 1.2 as all records say, length.
        let record = [&[APPLICATION_DATA, 3, 3, 2, 0][..], &body].concat();
        let first = if strike % 2 == 0 { &hello[..] } else { &[] };
        stream.write_all(&[first, &record].concat())?;
        let answer = rest(&mut stream)?;
        ensure!(
            answer.len() < HANDSHAKE_BYTES_MAX,
            "answered {} bytes",
            answer.len()
        );
        // Without a handshake there are no keys: what comes back is an alert in the clear.
        let last = last_record(&answer);
        ensure!(
            !first.is_empty() || last.is_none_or(|kind| kind == ALERT),
            "answered {:?}",
            answer.escape_ascii().to_string()
        );
        Ok(())
    })
}

/// The type of the last whole record.
fn last_record(mut bytes: &[u8]) -> Option<u8> {
    let mut last = None;
    while let Some((&[kind, _, _, high, low], rest)) = bytes.split_first_chunk::<5>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(after) = rest.get(length..) else {
            break;
        };
        (last, bytes) = (Some(kind), after);
    }
    last
}
