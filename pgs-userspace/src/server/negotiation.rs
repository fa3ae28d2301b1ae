//! What a connection says before its startup packet, and the packet itself.
//!
//! PostgreSQL's `src/backend/tcop/backend_startup.c` is the reference.

use bytes::Buf as _;
use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::protocol::Parsed;
use crate::protocol::cancel::CancelRequest;
use crate::protocol::refusal::Refusal;
use crate::protocol::startup;
use crate::protocol::startup::FirstPacket;
use crate::protocol::startup::StartupError;
use crate::protocol::startup::StartupMessage;
use crate::protocol::version::ProtocolVersion;

/// The answer to a request for encryption that is not to be had.
const NOT_ENCRYPTED: &[u8] = b"N";

/// What a connection turned out to be.
#[derive(Debug)]
pub(super) enum Negotiated {
    /// A client that wants a session; behind the message what it sent on without waiting.
    Session(StartupMessage, BytesMut),
    /// A request to cancel somebody's query.
    Cancel(CancelRequest),
    /// Closed before it said anything: a health check or a scanner.
    Silent,
    /// Not this protocol, or cut short; closed without a word, as PostgreSQL does.
    Malformed(String),
    /// To be told why not.
    Refused(Refusal),
}

/// Reads until it is clear what the connection is. Not cancel safe; the caller's deadline ends it.
pub(super) async fn negotiate(client: &mut TcpStream) -> std::io::Result<Negotiated> {
    let mut buffer = BytesMut::new();
    let (mut asked_ssl, mut asked_gss) = (false, false);
    loop {
        let packet = match next_packet(client, &mut buffer).await? {
            Next::Packet(packet) => packet,
            Next::End(negotiated) => return Ok(negotiated),
        };
        match packet {
            FirstPacket::Startup(message) => return Ok(Negotiated::Session(message, buffer)),
            FirstPacket::Cancel(request) => return Ok(Negotiated::Cancel(request)),
            FirstPacket::DirectTls => {
                return Ok(Negotiated::Malformed(
                    "direct TLS, and no certificate".into(),
                ));
            }
            FirstPacket::Ssl if asked_ssl => return Ok(again(ProtocolVersion::SSL_REQUEST)),
            FirstPacket::Gss if asked_gss => return Ok(again(ProtocolVersion::GSS_REQUEST)),
            FirstPacket::Ssl => {
                asked_ssl = true;
                client.write_all(NOT_ENCRYPTED).await?;
                if !buffer.is_empty() {
                    return Ok(Negotiated::Refused(Refusal::DataAfterSslRequest));
                }
            }
            FirstPacket::Gss => {
                asked_gss = true;
                client.write_all(NOT_ENCRYPTED).await?;
                if !buffer.is_empty() {
                    return Ok(Negotiated::Refused(Refusal::DataAfterGssRequest));
                }
            }
        }
    }
}

/// PostgreSQL takes a second request of one kind for a startup packet of an unknown protocol.
fn again(version: ProtocolVersion) -> Negotiated {
    Negotiated::Refused(Refusal::UnsupportedProtocol { version })
}

enum Next {
    Packet(FirstPacket),
    End(Negotiated),
}

async fn next_packet(client: &mut TcpStream, buffer: &mut BytesMut) -> std::io::Result<Next> {
    loop {
        // Nothing there yet: a thousand idle connections hold no buffer while they say nothing.
        if buffer.is_empty() {
            client.readable().await?;
        }
        match startup::parse(buffer) {
            Ok(Parsed::Complete { value, consumed }) => {
                buffer.advance(consumed);
                return Ok(Next::Packet(value));
            }
            Ok(Parsed::Incomplete { need }) => {
                // One more than is needed: what a client sends behind a request for encryption must
                // not stay unseen in the socket.
                buffer.reserve((need + 1).saturating_sub(buffer.len()));
            }
            Err(error) => return Ok(Next::End(not_a_packet(&error))),
        }
        if client.read_buf(buffer).await? == 0 {
            let end = if buffer.is_empty() {
                Negotiated::Silent
            } else {
                Negotiated::Malformed(format!("cut short after {} bytes", buffer.len()))
            };
            return Ok(Next::End(end));
        }
    }
}

fn not_a_packet(error: &StartupError) -> Negotiated {
    match error.refusal() {
        Some(refusal) => Negotiated::Refused(refusal),
        None => Negotiated::Malformed(error.to_string()),
    }
}
