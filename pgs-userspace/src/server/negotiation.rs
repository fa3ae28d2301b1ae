//! What a connection says before its startup packet, and the packet itself.
//!
//! PostgreSQL's `src/backend/tcop/backend_startup.c` is the reference.

use std::io;

use bytes::Buf as _;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::connection::FrontDoor;
use super::encryption::SecureStream;
use super::live::Rules;
use crate::protocol::Parsed;
use crate::protocol::cancel::CancelRequest;
use crate::protocol::refusal::Refusal;
use crate::protocol::startup;
use crate::protocol::startup::FirstPacket;
use crate::protocol::startup::StartupError;
use crate::protocol::startup::StartupMessage;
use crate::protocol::startup::TLS_HANDSHAKE;
use crate::protocol::version::ProtocolVersion;

/// The answer to an SSLRequest where TLS is to be had.
const ENCRYPTED: &[u8] = b"S";

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

/// How a client asked for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsRequest {
    /// SSLRequest, answered `S`.
    Asked,
    /// A ClientHello before anything else (PostgreSQL 17 and later).
    Direct,
}

/// What a connection in the clear turned out to be.
#[derive(Debug)]
pub(super) enum Opening {
    /// It stays in the clear.
    Settled(Negotiated),
    /// The handshake comes next; its beginning may have been read already.
    Encrypt(TlsRequest, BytesMut),
}

/// Reads until it is clear what the connection is; `front` was read from it already. Not cancel
/// safe; the caller's deadline ends it.
pub(super) async fn negotiate(
    client: &mut TcpStream,
    door: &FrontDoor,
    (rules, pinned): (&Rules, bool),
    front: BytesMut,
) -> io::Result<Opening> {
    let mut exchange = Exchange {
        buffer: front,
        ..Exchange::default()
    };
    loop {
        let packet = match exchange.next_packet(client).await? {
            Next::Packet(packet) => packet,
            Next::End(negotiated) => return Ok(Opening::Settled(negotiated)),
        };
        match packet {
            FirstPacket::DirectTls
                if exchange.is_first() && door.offers_tls(rules, pinned).await =>
            {
                return Ok(Opening::Encrypt(TlsRequest::Direct, exchange.buffer));
            }
            FirstPacket::Ssl if !exchange.asked_ssl && door.offers_tls(rules, pinned).await => {
                if exchange
                    .buffer
                    .first()
                    .is_some_and(|byte| *byte != TLS_HANDSHAKE)
                {
                    // In the place of `S`: a client expects an error there.
                    let refusal = Negotiated::Refused(Refusal::DataAfterSslRequest);
                    return Ok(Opening::Settled(refusal));
                }
                client.write_all(ENCRYPTED).await?;
                // A ClientHello that did not wait for the answer is welcome, as in PostgreSQL 17:
                // it goes into the handshake and nowhere else.
                return Ok(Opening::Encrypt(TlsRequest::Asked, exchange.buffer));
            }
            packet => {
                if let Some(negotiated) = exchange.answer(client, packet).await? {
                    return Ok(Opening::Settled(negotiated));
                }
            }
        }
    }
}

/// The same, once everything is encrypted. As in PostgreSQL, no request for encryption may follow
/// an SSLRequest that was granted; after direct TLS each may be made once, to be told `N`.
pub(super) async fn negotiate_encrypted(
    client: &mut SecureStream,
    request: TlsRequest,
) -> io::Result<Negotiated> {
    let asked = request == TlsRequest::Asked;
    let mut exchange = Exchange {
        asked_ssl: asked,
        asked_gss: asked,
        ..Exchange::default()
    };
    loop {
        let packet = match exchange.next_packet(client).await? {
            Next::Packet(packet) => packet,
            Next::End(negotiated) => return Ok(negotiated),
        };
        if let Some(negotiated) = exchange.answer(client, packet).await? {
            return Ok(negotiated);
        }
    }
}

/// The same for a connection in the clear that gets nothing but a request to cancel: none where it
/// wants anything else.
pub(super) async fn negotiate_cancel(
    client: &mut TcpStream,
    door: &FrontDoor,
    (rules, pinned): (&Rules, bool),
    front: BytesMut,
) -> io::Result<Option<CancelRequest>> {
    let mut exchange = Exchange {
        buffer: front,
        ..Exchange::default()
    };
    loop {
        let packet = match exchange.next_packet(client).await? {
            Next::Packet(FirstPacket::Cancel(request)) => return Ok(Some(request)),
            // Told that there is none, a client could go on in the clear.
            Next::Packet(FirstPacket::Ssl) if door.offers_tls(rules, pinned).await => {
                return Ok(None);
            }
            Next::Packet(packet) => packet,
            Next::End(_) => return Ok(None),
        };
        if exchange.answer(client, packet).await?.is_some() {
            return Ok(None);
        }
    }
}

/// What was said so far.
#[derive(Debug, Default)]
struct Exchange {
    /// Read and not yet understood.
    buffer: BytesMut,
    asked_ssl: bool,
    asked_gss: bool,
}

impl Exchange {
    /// Whether nothing was asked before.
    fn is_first(&self) -> bool {
        !self.asked_ssl && !self.asked_gss
    }

    /// Answers a packet where no encryption is to be had; `None` if more will follow.
    async fn answer(
        &mut self,
        client: &mut (impl AsyncWrite + Unpin),
        packet: FirstPacket,
    ) -> io::Result<Option<Negotiated>> {
        let (asked, version, refusal) = match packet {
            FirstPacket::Startup(message) => {
                let rest = std::mem::take(&mut self.buffer);
                return Ok(Some(Negotiated::Session(message, rest)));
            }
            FirstPacket::Cancel(request) => return Ok(Some(Negotiated::Cancel(request))),
            FirstPacket::DirectTls => {
                let why = "a TLS handshake where none can begin".to_owned();
                return Ok(Some(Negotiated::Malformed(why)));
            }
            FirstPacket::Ssl => (
                &mut self.asked_ssl,
                ProtocolVersion::SSL_REQUEST,
                Refusal::DataAfterSslRequest,
            ),
            FirstPacket::Gss => (
                &mut self.asked_gss,
                ProtocolVersion::GSS_REQUEST,
                Refusal::DataAfterGssRequest,
            ),
        };
        if *asked {
            // PostgreSQL takes it for a startup packet of an unknown protocol.
            let refusal = Refusal::UnsupportedProtocol { version };
            return Ok(Some(Negotiated::Refused(refusal)));
        }
        *asked = true;
        client.write_all(NOT_ENCRYPTED).await?;
        client.flush().await?;
        Ok((!self.buffer.is_empty()).then_some(Negotiated::Refused(refusal)))
    }

    async fn next_packet(&mut self, client: &mut (impl AsyncRead + Unpin)) -> io::Result<Next> {
        let buffer = &mut self.buffer;
        loop {
            match startup::parse(buffer) {
                Ok(Parsed::Complete { value, consumed }) => {
                    buffer.advance(consumed);
                    return Ok(Next::Packet(value));
                }
                // Nothing there yet: connections that say nothing hold a few bytes.
                Ok(Parsed::Incomplete { need }) => {
                    // One more than is needed: what a client sends behind a request for encryption
                    // must not stay unseen in the socket.
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
}

enum Next {
    Packet(FirstPacket),
    End(Negotiated),
}

fn not_a_packet(error: &StartupError) -> Negotiated {
    match error.refusal() {
        Some(refusal) => Negotiated::Refused(refusal),
        None => Negotiated::Malformed(error.to_string()),
    }
}
