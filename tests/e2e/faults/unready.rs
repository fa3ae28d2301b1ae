//! A tenant's server that is not there, takes nobody, or goes away before a client is logged in:
//! the client is told which, with a way out.

use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::stand_in::StandIn;
use pgs_tests::stand_in::TENANT;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;
use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

/// How long a server's full queue is waited for.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Tries with a server that closes: it may do so before or after the router has written.
const TRIES: usize = 20;

/// More than a queue of the shortest length takes.
const CONNECTIONS_MAX: usize = 16;

/// AuthenticationCleartextPassword.
const ASK: [u8; 4] = [0, 0, 0, 3];

pub(super) fn servers_that_let_nobody_in(stage: &Stage) -> anyhow::Result<()> {
    let stand_in = StandIn::without_server()?;
    let file = stand_in.run().join("pgs.toml");
    let deadline = CONNECT_DEADLINE.as_secs();
    fs::write(
        &file,
        format!("[limits]\nbackend_connect_deadline = \"{deadline}s\"\n"),
    )?;
    let file = file.to_string_lossy();
    let arguments = ["--path", stage.path().as_str(), "--config", &file];
    let router = Router::start_with(&stand_in.state(), &stand_in.run(), &arguments)?;
    let absent = "starting up or not running";
    told(&router, "57P03", absent)?;
    full_queue(&router, &stand_in)?;
    // A killed server leaves its socket.
    told(&router, "57P03", absent)?;
    fs::remove_file(stand_in.socket())?;
    let gone = "closed the connection before the login ended";
    let listener = UnixListener::bind(stand_in.socket())?;
    let ends: [fn(UnixStream) -> anyhow::Result<()>; 2] = [closes_at_once, closes_in_the_login];
    for end in ends {
        for _ in 0..TRIES {
            std::thread::scope(|scope| {
                let server = scope.spawn(|| end(listener.accept()?.0));
                told(&router, "08006", gone)?;
                server
                    .join()
                    .map_err(|_| anyhow::anyhow!("the server panicked"))?
            })?;
        }
    }
    ensure!(router.sessions(TENANT)?.is_empty(), "a place is not free");
    Ok(())
}

fn full_queue(router: &Router, stand_in: &StandIn) -> anyhow::Result<()> {
    let address = SockAddr::unix(stand_in.socket())?;
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    listener.bind(&address)?;
    listener.listen(0)?;
    let mut waiting = Vec::new();
    loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        client.set_nonblocking(true)?;
        if client.connect(&address).is_err() {
            break;
        }
        waiting.push(client);
        ensure!(waiting.len() < CONNECTIONS_MAX, "the queue is never full");
    }
    let begun = Instant::now();
    told(router, "57P03", "does not accept connections")?;
    // Looked at again and again, up to the deadline.
    let took = begun.elapsed();
    ensure!(took > CONNECT_DEADLINE / 2, "after {took:?}");
    Ok(())
}

fn closes_at_once(_: UnixStream) -> anyhow::Result<()> {
    Ok(())
}

fn closes_in_the_login(mut client: UnixStream) -> anyhow::Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    client.read_exact(&mut rest)?;
    client.write_all(&packed(b'R', &ASK))?;
    Ok(())
}

/// The last that a client hears is this error, with a hint.
fn told(router: &Router, state: &str, words: &str) -> anyhow::Result<()> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", TENANT)]))?;
    let mut messages: Vec<Message> = Vec::new();
    while let Some(message) = wire.message_or_end()? {
        messages.push(message);
    }
    let last = messages.last().filter(|last| {
        let text = last.field(b'M').unwrap_or_default();
        last.sqlstate().as_deref() == Some(state) && text.contains(words)
    });
    let hint = last.and_then(|last| last.field(b'H'));
    ensure!(hint.is_some(), "not {state} {words:?}: {messages:?}");
    Ok(())
}
