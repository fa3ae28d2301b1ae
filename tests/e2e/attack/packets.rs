//! First packets that are none, and cancel requests for nobody.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;

use anyhow::bail;
use anyhow::ensure;
use pgs_tests::login::BackendKey;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use rand::Rng as _;
use rand::RngCore as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::ground::Ground;
use super::ground::paced;

/// Connections a second of one attacker. More, and what is measured is the attacker.
const RATE: u32 = 200;
/// Record type of RFC 8446, section 5.1.
const TLS_ALERT: u8 = 21;
/// No refusal is longer.
const REFUSAL_BYTES_MAX: usize = 4096;

/// What such a client may see at most: an ErrorResponse, then the end.
fn ends_with_a_refusal_or_nothing(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend(&buffer[..read]),
            // What was sent and not read makes the close a reset.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => bail!("neither answered nor closed: {error}"),
        }
        ensure!(
            answer.len() <= REFUSAL_BYTES_MAX,
            "answered {} bytes",
            answer.len()
        );
    }
    let first = answer.first();
    // What begins like a ClientHello gets an alert.
    ensure!(
        first.is_none_or(|kind| [b'E', b'N', b'S', TLS_ALERT].contains(kind)),
        "answered {:?}",
        answer.escape_ascii().to_string()
    );
    Ok(())
}

/// Sends it, says that this was all, and reads the answer to its end.
fn send(ground: &Ground<'_>, bytes: &[u8]) -> anyhow::Result<()> {
    let mut stream = ground.connect()?;
    // The router may have closed already.
    let sent = stream.write_all(bytes);
    if sent.is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        ends_with_a_refusal_or_nothing(&mut stream)?;
    }
    Ok(())
}

pub(super) fn garbage(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    let mut random = SmallRng::seed_from_u64(1);
    paced(RATE, stop, |_| {
        let mut bytes = vec![0; random.random_range(1..4096)];
        random.fill_bytes(&mut bytes);
        send(ground, &bytes)
    })
}

/// A sound packet that ends somewhere: with a half-close, or with a reset.
pub(super) fn truncated(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    let mut random = SmallRng::seed_from_u64(2);
    let user = &ground.login().user;
    let packet = startup_packet(PROTOCOL_3_0, &[("user", user), ("database", user)]);
    paced(RATE, stop, |strike| {
        let part = &packet[..random.random_range(1..packet.len())];
        if strike % 2 == 0 {
            return send(ground, part);
        }
        let mut stream = ground.connect()?;
        stream.write_all(part)?;
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
        Ok(())
    })
}

/// Length words beyond all bounds, and bytes behind them.
pub(super) fn oversized(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    let lengths = [10_005_u32, 65_536, 1 << 24, 0x7fff_ffff, u32::MAX];
    let junk = vec![b'x'; 64 * 1024];
    paced(RATE, stop, |strike| {
        let length = lengths[strike as usize % lengths.len()];
        send(ground, &[&length.to_be_bytes()[..], &junk].concat())
    })
}

pub(super) fn http(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    let requests: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /login HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"CONNECT localhost:5432 HTTP/1.1\r\n\r\n",
    ];
    paced(RATE, stop, |strike| {
        send(ground, requests[strike as usize % requests.len()])
    })
}

/// Keys that nobody has. Nothing may come back, and no query may end.
pub(super) fn cancel_flood(ground: &Ground<'_>, stop: &AtomicBool) -> anyhow::Result<u64> {
    let mut random = SmallRng::seed_from_u64(3);
    paced(RATE * 2, stop, |strike| {
        let mut secret = vec![0; if strike % 2 == 0 { 4 } else { 32 }];
        random.fill_bytes(&mut secret);
        let key = BackendKey {
            // Pids that there are, too.
            process_id: random.random_range(1..400_u32).to_be_bytes(),
            secret,
        };
        let mut stream = ground.connect()?;
        stream.write_all(&key.cancel_request())?;
        let mut answer = Vec::new();
        // Beyond its budget the router may reset.
        if stream.read_to_end(&mut answer).is_ok() {
            ensure!(answer.is_empty(), "a cancel request was answered");
        }
        Ok(())
    })
}
