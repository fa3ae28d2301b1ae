//! Telling the tenant's SQL where the client is: its server sees only the router's Unix socket.
//!
//! The address goes into the startup packet as parameters of its own, behind all others. A name
//! that PostgreSQL does not know is a setting to it, and `process_startup_options` of its
//! `src/backend/utils/init/postinit.c` applies those after `options` and in their order: what the
//! client itself sent under these names, in any spelling and in either place, comes earlier and is
//! overwritten.

use core::net::SocketAddr;

use bytes::Bytes;
use bytes::BytesMut;

use super::startup::StartupMessage;
use crate::config::limits::STARTUP_PACKET_BYTES_MAX;

/// The setting that has the client's IP address.
pub const ADDRESS_SETTING: &str = "pgs.client_addr";

/// The setting that has the client's TCP port.
pub const PORT_SETTING: &str = "pgs.client_port";

/// The packet is so long that the server would not take it with the address in it. It cannot be
/// forwarded without: what the client says of itself would then be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "startup packet of {length} bytes has no room for the client's address: \
     {STARTUP_PACKET_BYTES_MAX} are possible"
)]
pub struct NoRoom {
    /// Bytes as the client sent it.
    pub length: usize,
}

/// The packet of `message` with the client's address at its end, every other byte as it was.
pub fn with_client_address(message: &StartupMessage, client: SocketAddr) -> Result<Bytes, NoRoom> {
    let raw = message.raw();
    let (ip, port) = (client.ip().to_canonical(), client.port());
    let settings = format!("{ADDRESS_SETTING}\0{ip}\0{PORT_SETTING}\0{port}\0");
    let no_room = NoRoom { length: raw.len() };
    let length = raw.len() + settings.len();
    if length > STARTUP_PACKET_BYTES_MAX {
        return Err(no_room);
    }
    let word = u32::try_from(length).map_err(|_| no_room)?.to_be_bytes();
    // A message that was parsed has its length word in front and one byte, its terminator, at its
    // end.
    let (pairs, terminator) = raw.split_last_chunk::<1>().ok_or(no_room)?;
    let pairs = pairs.get(word.len()..).ok_or(no_room)?;
    let mut packet = BytesMut::with_capacity(length);
    for part in [&word[..], pairs, settings.as_bytes(), terminator] {
        packet.extend_from_slice(part);
    }
    Ok(packet.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::Parsed;
    use super::super::startup;
    use super::super::startup::FirstPacket;
    use super::*;

    fn packet(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).unwrap();
        [&length.to_be_bytes(), &[0, 3, 0, 0][..], body].concat()
    }

    fn message(packet: &[u8]) -> StartupMessage {
        match startup::parse(packet) {
            Ok(Parsed::Complete {
                value: FirstPacket::Startup(message),
                ..
            }) => message,
            other => panic!("{other:?}"),
        }
    }

    fn client(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_comes_last_and_the_rest_stays() {
        let before =
            packet(b"user\0u\0options\0-c pgs.client_addr=6.6.6.6\0pgs.client_addr\x006\0\0");
        let after = with_client_address(&message(&before), client("192.0.2.1:7")).unwrap();
        let added = b"pgs.client_addr\x00192.0.2.1\0pgs.client_port\x007\0";
        assert_eq!(after.len(), before.len() + added.len());
        assert_eq!(after[4..before.len() - 1], before[4..before.len() - 1]);
        assert_eq!(&after[before.len() - 1..], [&added[..], b"\0"].concat());
        assert_eq!(
            message(&after).parameter(ADDRESS_SETTING),
            Some(&b"192.0.2.1"[..])
        );
    }

    #[test]
    fn ipv4_is_never_in_ipv6s_clothes() {
        let before = message(&packet(b"user\0u\0\0"));
        let value = |address| {
            let after = with_client_address(&before, client(address)).unwrap();
            let value = message(&after)
                .parameter(ADDRESS_SETTING)
                .map(<[u8]>::to_vec);
            String::from_utf8(value.unwrap()).unwrap()
        };
        assert_eq!(value("[::ffff:192.0.2.1]:7"), "192.0.2.1");
        assert_eq!(value("[2001:db8::1]:7"), "2001:db8::1");
        assert_eq!(value("[fe80::1%3]:7"), "fe80::1");
    }

    #[test]
    fn the_servers_bound_on_the_packet_holds() {
        let added = "pgs.client_addr\x00192.0.2.1\0pgs.client_port\x007\0".len();
        let of = |length: usize| {
            let mut body = b"user\0".to_vec();
            body.resize(length - 8 - 2, b'u');
            body.extend(b"\0\0");
            message(&packet(&body))
        };
        let fits = STARTUP_PACKET_BYTES_MAX - added;
        let client = client("192.0.2.1:7");
        let longest = with_client_address(&of(fits), client).unwrap();
        assert_eq!(longest.len(), STARTUP_PACKET_BYTES_MAX);
        let length = fits + 1;
        assert_eq!(
            with_client_address(&of(length), client),
            Err(NoRoom { length })
        );
    }

    proptest! {
        #[test]
        fn whatever_the_client_sent_ours_is_the_last(
            pairs in vec((vec(1..=u8::MAX, 1..20), vec(1..=u8::MAX, 0..20)), 0..8),
            terminator: u8,
            ip: core::net::IpAddr,
            port: u16,
        ) {
            let mut body = b"user\0u\0".to_vec();
            for (name, value) in &pairs {
                body.extend([name, &b"\0"[..], value, b"\0"].concat());
            }
            // The server does not look at it, see `parameters`.
            body.push(terminator);
            let before = message(&packet(&body));
            let after = with_client_address(&before, SocketAddr::new(ip, port)).unwrap();
            let after = message(&after);
            let before: Vec<_> = before.parameters().iter().collect();
            let after: Vec<_> = after.parameters().iter().collect();
            let (kept, added) = after.split_at(before.len());
            prop_assert_eq!(kept, before);
            let (ip, port) = (ip.to_canonical().to_string(), port.to_string());
            let expected =
                [(ADDRESS_SETTING, ip.as_bytes()), (PORT_SETTING, port.as_bytes())];
            let expected = expected.map(|(name, value)| (name.as_bytes(), value));
            prop_assert_eq!(added, expected);
        }
    }
}
