//! Byte-exact vectors for the first packet.

use super::*;

/// What psql 15 sends for `psql -U acme -d shop` without TLS.
const PSQL: &[u8] = b"\0\0\0\x4c\0\x03\0\0user\0acme\0database\0shop\0application_name\0psql\0\
                      client_encoding\0UTF8\0\0";

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

fn complete(buf: &[u8]) -> FirstPacket {
    match parse(buf) {
        Ok(Parsed::Complete { value, .. }) => value,
        other => panic!("{other:?}"),
    }
}

fn startup(buf: &[u8]) -> StartupMessage {
    match complete(buf) {
        FirstPacket::Startup(message) => message,
        other => panic!("{other:?}"),
    }
}

fn replication(value: &str) -> Replication {
    let body = format!("user\0u\0replication\0{value}\0\0");
    startup(&packet(0x0003_0000, body.as_bytes())).replication()
}

#[test]
fn a_startup_message_of_psql() {
    assert_eq!(PSQL.len(), 0x4c);
    let message = startup(PSQL);
    assert_eq!(message.raw(), PSQL);
    assert_eq!(message.version(), ProtocolVersion { major: 3, minor: 0 });
    assert_eq!(message.user(), b"acme");
    assert_eq!(message.database(), b"shop");
    assert_eq!(message.parameter("client_encoding"), Some(&b"UTF8"[..]));
    assert_eq!(message.options(), None);
    assert_eq!(message.tenant_option(), None);
    assert_eq!(message.replication(), Replication::Off);
}

#[test]
fn what_follows_a_packet_is_not_consumed() {
    let buf = [PSQL, b"more"].concat();
    let Ok(Parsed::Complete { consumed, value }) = parse(&buf) else {
        panic!("incomplete")
    };
    assert_eq!(consumed, PSQL.len());
    assert_eq!(value, FirstPacket::Startup(startup(PSQL)));
}

#[test]
fn every_beginning_asks_for_more() {
    for length in 0..PSQL.len() {
        let need = if length < 4 { 8 } else { PSQL.len() };
        assert_eq!(
            parse(&PSQL[..length]),
            Ok(Parsed::Incomplete { need }),
            "{length}"
        );
    }
}

#[test]
fn requests_to_encrypt() {
    assert_eq!(complete(b"\0\0\0\x08\x04\xd2\x16\x2f"), FirstPacket::Ssl);
    assert_eq!(complete(b"\0\0\0\x08\x04\xd2\x16\x30"), FirstPacket::Gss);
    assert_eq!(
        complete(&packet(SSL_REQUEST_CODE, b"ignored")),
        FirstPacket::Ssl
    );
}

#[test]
fn direct_tls_shows_in_the_first_byte_and_consumes_nothing() {
    let expected = Parsed::Complete {
        value: FirstPacket::DirectTls,
        consumed: 0,
    };
    assert_eq!(parse(&[0x16]), Ok(expected.clone()));
    assert_eq!(parse(b"\x16\x03\x01\x02\0\x01"), Ok(expected));
}

#[test]
fn cancel_requests_of_every_key_length() {
    for length in [4, 5, 32, 256] {
        let key = CancelKey::new(&vec![0xa5; length]).unwrap();
        let request = CancelRequest {
            process_id: 0xfedc_ba98,
            key,
        };
        assert_eq!(complete(&request.encode()), FirstPacket::Cancel(request));
    }
    let short = parse(&packet(CANCEL_REQUEST_CODE, b"pid")).unwrap_err();
    assert_eq!(short, StartupError::CancelLength { length: 11 });
    let error = parse(&packet(CANCEL_REQUEST_CODE, b"pid!key")).unwrap_err();
    assert_eq!(
        error,
        StartupError::CancelKey(CancelKeyLengthError { length: 3 })
    );
    assert_eq!(error.refusal(), None);
    assert!(parse(&packet(CANCEL_REQUEST_CODE, &[0; 4 + 257])).is_err());
}

#[test]
fn lengths_out_of_bounds_are_refused_at_the_fourth_byte() {
    for length in [0, 4, 7, 10_005, 0x4745_5420, u32::MAX] {
        let error = parse(&length.to_be_bytes()).unwrap_err();
        assert_eq!(error, StartupError::Length { length });
        assert_eq!(error.refusal(), None, "PostgreSQL closes without a word");
    }
    for length in [8, 9, 10_000, 10_004] {
        let need = usize::try_from(length).unwrap();
        assert_eq!(
            parse(&u32::to_be_bytes(length)),
            Ok(Parsed::Incomplete { need })
        );
    }
}

#[test]
fn the_longest_packet_there_is() {
    let mut body = b"user\0u\0application_name\0".to_vec();
    body.resize(10_004 - 8 - 2, b'x');
    body.extend([0, 0]);
    assert_eq!(startup(&packet(0x0003_0000, &body)).raw().len(), 10_004);
}

#[test]
fn versions_of_the_future_and_protocol_options_are_let_through() {
    let body = b"user\0u\0_pq_.test_protocol_negotiation\0\0\0";
    for minor in [0, 1, 2, 3, 9999] {
        let buf = packet(0x0003_0000 | minor, body);
        let message = startup(&buf);
        assert_eq!(u32::from(message.version().minor), minor);
        assert_eq!(message.raw(), &buf[..]);
        assert_eq!(
            message.parameter("_pq_.test_protocol_negotiation"),
            Some(&b""[..])
        );
    }
}

#[test]
fn other_major_versions_are_refused() {
    for code in [0, 0x0002_0000, 0x0004_0000, 1234 << 16 | 1] {
        let error = parse(&packet(code, b"user\0u\0\0")).unwrap_err();
        let version = ProtocolVersion::from_word(code);
        assert_eq!(error, StartupError::UnsupportedProtocol(version));
        assert_eq!(
            error.refusal(),
            Some(Refusal::UnsupportedProtocol { version })
        );
    }
}

#[test]
fn the_user_is_needed_and_the_database_follows_it() {
    let message = startup(&packet(0x0003_0000, b"user\0acme\0\0"));
    assert_eq!(
        (message.user(), message.database()),
        (&b"acme"[..], &b"acme"[..])
    );
    let message = startup(&packet(0x0003_0000, b"user\0acme\0database\0\0\0"));
    assert_eq!(message.database(), b"acme");
    for body in [&b"\0"[..], b"user\0\0\0", b"database\0d\0\0"] {
        let error = parse(&packet(0x0003_0000, body)).unwrap_err();
        assert_eq!(error, StartupError::MissingUser);
    }
}

#[test]
fn a_missing_terminator_is_a_protocol_violation() {
    for body in [&b""[..], b"user\0u\0", b"user\0u\0\0\0", b"user"] {
        let error = parse(&packet(0x0003_0000, body)).unwrap_err();
        assert_eq!(
            error,
            StartupError::Layout {
                length: body.len() + 8
            }
        );
        assert_eq!(error.refusal(), Some(Refusal::MalformedStartup));
    }
}

#[test]
fn names_in_any_encoding() {
    let message = startup(&packet(
        0x0003_0000,
        b"user\0\xff\xfe\0database\0caf\xe9\0\0",
    ));
    assert_eq!(
        (message.user(), message.database()),
        (&b"\xff\xfe"[..], &b"caf\xe9"[..])
    );
}

#[test]
fn replication_as_the_server_reads_it() {
    for value in ["true", "TRUE", "t", "yes", "y", "on", "1"] {
        assert_eq!(replication(value), Replication::Physical, "{value}");
    }
    assert_eq!(replication("database"), Replication::Logical);
    for value in ["false", "off", "no", "0", "", "o", "Database", "truest"] {
        assert_eq!(replication(value), Replication::Off, "{value}");
    }
}

#[test]
fn an_ssl_request_reads_as_one() {
    assert_eq!(complete(&ssl_request()), FirstPacket::Ssl);
    assert_eq!(ssl_request(), *b"\0\0\0\x08\x04\xd2\x16\x2f");
}
