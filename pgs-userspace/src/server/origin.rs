//! Where a client is: learnt from trusted proxies, told to the tenant's server.

use std::io;
use std::net::SocketAddr;

use bytes::Buf as _;
use bytes::Bytes;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;

use super::negotiation::Negotiated;
use super::strangers;
use crate::config::network::Networks;
use crate::protocol::Parsed;
use crate::protocol::client_address::with_client_address;
use crate::protocol::proxy;
use crate::protocol::proxy::ProxyHeader;
use crate::protocol::refusal::Refusal;
use crate::protocol::startup::StartupMessage;
use crate::tenant::route::Route;

/// What is known of a connection before it is looked at as a client's.
#[derive(Debug)]
pub(super) enum Origin {
    /// It is for a client there; what was read behind the header.
    Client(SocketAddr, BytesMut),
    /// It is nobody's.
    End(Negotiated),
}

/// Where the client of a connection from `peer` is. A trusted proxy must say it, before anything
/// else; nobody else is asked, and a header from them is no startup packet. Not cancel safe; the
/// caller's deadline ends it.
pub(super) async fn find(
    connection: &mut (impl AsyncRead + Unpin),
    peer: SocketAddr,
    trusted: &Networks,
) -> io::Result<Origin> {
    let mut buffer = BytesMut::new();
    if !trusted.contain(peer.ip()) {
        return Ok(Origin::Client(peer, buffer));
    }
    loop {
        match proxy::parse(&buffer) {
            Ok(Parsed::Complete { value, consumed }) => {
                buffer.advance(consumed);
                let client = match value {
                    ProxyHeader::Client(client) => client,
                    ProxyHeader::Local => peer,
                };
                return Ok(Origin::Client(client, buffer));
            }
            Ok(Parsed::Incomplete { need }) => buffer.reserve(need.saturating_sub(buffer.len())),
            Err(error) => {
                if strangers::log_has_room("no_proxy_header_why") {
                    tracing::info!(address = %peer, %error,
                        "a trusted proxy does not name its client");
                }
                return Ok(Origin::End(Negotiated::Refused(Refusal::NoProxyHeader)));
            }
        }
        if connection.read_buf(&mut buffer).await? == 0 {
            return Ok(Origin::End(match buffer.len() {
                // A proxy's health check.
                0 => Negotiated::Silent,
                length => Negotiated::Malformed(format!(
                    "PROXY protocol header cut short after {length} bytes"
                )),
            }));
        }
    }
}

/// What a tenant's server gets as the startup packet: what the client has sent, byte for byte, and
/// where it is, unless the tenant does not want to know.
pub(super) fn startup_packet(
    route: &Route,
    message: &StartupMessage,
    client: SocketAddr,
) -> Result<Bytes, Refusal> {
    if !route.settings.client_address {
        return Ok(message.raw().clone());
    }
    with_client_address(message, client).map_err(|error| {
        let tenant = &route.tenant;
        if strangers::log_has_room("no_room_for_address_why") {
            tracing::info!(address = %client, %tenant, %error, "startup packet too long");
        }
        Refusal::NoRoomForAddress
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value as _;

    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 7 5432\r\n";

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    async fn found(bytes: &[u8], peer: &str) -> Origin {
        let trusted = Networks::parse("10.0.0.0/8").unwrap();
        let mut bytes = bytes;
        find(&mut bytes, at(peer), &trusted).await.unwrap()
    }

    #[tokio::test]
    async fn a_trusted_proxys_word_counts() {
        let bytes = [HEADER, b"what follows"].concat();
        let origin = found(&bytes, "10.1.2.3:9").await;
        let Origin::Client(client, front) = origin else {
            panic!("{origin:?}");
        };
        assert_eq!(
            (client, &front[..]),
            (at("192.0.2.1:7"), &b"what follows"[..])
        );
        let origin = found(b"PROXY UNKNOWN\r\n", "[::ffff:10.1.2.3]:9").await;
        let Origin::Client(client, front) = origin else {
            panic!("{origin:?}");
        };
        assert_eq!((client, front.len()), (at("[::ffff:10.1.2.3]:9"), 0));
    }

    #[tokio::test]
    async fn nobody_else_is_even_read_from() {
        let origin = found(HEADER, "192.0.2.66:9").await;
        let Origin::Client(client, front) = origin else {
            panic!("{origin:?}");
        };
        assert_eq!((client, front.len()), (at("192.0.2.66:9"), 0));
    }

    #[tokio::test]
    async fn a_trusted_proxy_must_say_it() {
        let refused = |origin| {
            matches!(
                origin,
                Origin::End(Negotiated::Refused(Refusal::NoProxyHeader))
            )
        };
        assert!(refused(
            found(b"\0\0\0\x08\x04\xd2\x16\x2f", "10.1.2.3:9").await
        ));
        assert!(refused(found(b"PROXY TCP4 x\r\n", "10.1.2.3:9").await));
        let silent = found(b"", "10.1.2.3:9").await;
        assert!(matches!(silent, Origin::End(Negotiated::Silent)));
        let cut = found(&HEADER[..9], "10.1.2.3:9").await;
        assert!(matches!(cut, Origin::End(Negotiated::Malformed(_))));
    }
}
