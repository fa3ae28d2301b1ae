//! However a ClientHello is cut, it says the same; whatever else comes, nothing panics.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;

use super::*;

/// A real ClientHello, in one record.
fn hello(name: Option<&'static str>) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = name.is_some();
    let name = ServerName::try_from(name.unwrap_or("unsaid.test")).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same handshake message in records of at most so many bytes.
fn fragmented(hello: &[u8], each: usize) -> Vec<u8> {
    let (header, message) = hello.split_at(5);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&header[..3], &length, part].concat()
    };
    message.chunks(each).flat_map(record).collect()
}

fn read_in_pieces(bytes: &[u8], each: usize) -> ClientHelloState {
    let mut reader = ClientHelloReader::default();
    let mut state = ClientHelloState::Incomplete;
    for piece in bytes.chunks(each) {
        state = reader.read(piece);
        if state != ClientHelloState::Incomplete {
            break;
        }
    }
    state
}

fn named(name: &str) -> ClientHelloState {
    ClientHelloState::Complete(Some(name.to_owned()))
}

#[test]
fn a_dot_at_the_end_changes_nothing() {
    // RFC 6066 has none there; libpq sends the host as it was typed.
    let mut hello = hello(Some("acme.db.testx"));
    let name = b"acme.db.testx";
    let at = hello.windows(name.len()).position(|part| part == name);
    hello[at.unwrap() + name.len() - 1] = b'.';
    assert_eq!(read_in_pieces(&hello, usize::MAX), named("acme.db.test"));
}

#[test]
fn the_name_in_lower_case_or_none() {
    let all = usize::MAX;
    assert_eq!(
        read_in_pieces(&hello(Some("Acme.DB.test")), all),
        named("acme.db.test")
    );
    // A tenant's id may have an underscore.
    assert_eq!(
        read_in_pieces(&hello(Some("a_1.db.test")), all),
        named("a_1.db.test")
    );
    assert_eq!(
        read_in_pieces(&hello(None), all),
        ClientHelloState::Complete(None)
    );
    assert_eq!(
        read_in_pieces(&hello(Some("127.0.0.1")), all),
        ClientHelloState::Complete(None)
    );
}

#[test]
fn every_prefix_is_incomplete() {
    let hello = hello(Some("acme.db.test"));
    for length in 0..hello.len() {
        let state = read_in_pieces(&hello[..length], usize::MAX);
        assert_eq!(state, ClientHelloState::Incomplete, "{length} bytes");
    }
}

#[test]
fn what_is_no_client_hello() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\xff\xff",
    ] {
        let state = read_in_pieces(bytes, usize::MAX);
        assert_eq!(state, ClientHelloState::Unreadable, "{bytes:?}");
    }
}

#[test]
fn one_without_an_end_is_too_long_at_some_point() {
    // A handshake message that claims to be as long as one can be, in endless small records.
    let begin = b"\x16\x03\x01\x00\x04\x01\x00\xff\x00";
    let more = [b"\x16\x03\x01\x00\x80".as_slice(), &[0; 128]].concat();
    let mut reader = ClientHelloReader::default();
    assert_eq!(reader.read(begin), ClientHelloState::Incomplete);
    let mut fed = begin.len();
    loop {
        match reader.read(&more) {
            ClientHelloState::Incomplete => fed += more.len(),
            state => {
                assert_eq!(state, ClientHelloState::TooLong);
                break;
            }
        }
        assert!(fed <= CLIENT_HELLO_BYTES_MAX);
    }
}

proptest! {
    #[test]
    fn records_and_pieces_do_not_matter(record in 1_usize..600, piece in 1_usize..600) {
        let bytes = fragmented(&hello(Some("acme.db.test")), record);
        prop_assert_eq!(read_in_pieces(&bytes, piece), named("acme.db.test"));
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000), piece in 1_usize..99) {
        read_in_pieces(&bytes, piece);
    }

    #[test]
    fn a_changed_byte_panics_nowhere(at in 0_usize..250, to in any::<u8>(), piece in 1_usize..99) {
        let mut bytes = hello(Some("acme.db.test"));
        let at = at % bytes.len();
        bytes[at] = to;
        read_in_pieces(&bytes, piece);
    }
}
