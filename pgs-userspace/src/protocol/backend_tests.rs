//! Byte-exact vectors for what a backend says during authentication.

use super::*;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn scan(stream: &[u8]) -> Result<Vec<BackendEvent>, BackendError> {
    let mut events = Vec::new();
    BackendScanner::new()
        .feed(stream, |event| events.push(event))
        .map(|()| events)
}

fn one(kind: u8, body: &[u8]) -> BackendMessage {
    let mut events = scan(&message(kind, body)).unwrap();
    assert_eq!(events.len(), 1);
    events.remove(0).message
}

#[test]
fn a_login_with_scram() {
    let stream = [
        message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
        message(b'R', b"\0\0\0\x0br=nonce,s=c2FsdA==,i=4096"),
        message(b'R', b"\0\0\0\x0cv=proof"),
        message(b'R', b"\0\0\0\0"),
        message(b'S', b"server_version\x0018.0\0"),
        message(b'K', b"\0\0\x12\x67\xde\xad\xbe\xef"),
        message(b'Z', b"I"),
    ];
    let lengths = stream.iter().map(|message| message.len() as u64);
    let ends = lengths.scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    let ends: Vec<_> = ends.collect();
    let events = scan(&stream.concat()).unwrap();
    assert_eq!(
        events.iter().map(|event| event.end).collect::<Vec<_>>(),
        ends
    );
    assert_eq!(events[1].start, events[0].end);
    let messages: Vec<_> = events.into_iter().map(|event| event.message).collect();
    let request = BackendMessage::AuthenticationRequest;
    let expected = [
        request(AuthenticationRequest::Sasl),
        request(AuthenticationRequest::SaslContinue),
        request(AuthenticationRequest::SaslFinal),
        BackendMessage::AuthenticationOk,
        BackendMessage::Other { kind: b'S' },
        BackendMessage::BackendKeyData {
            process_id: 4711,
            key: CancelKey::new(&[0xde, 0xad, 0xbe, 0xef]),
        },
        BackendMessage::ReadyForQuery { transaction: b'I' },
    ];
    assert_eq!(messages, expected);
}

#[test]
fn every_kind_of_request() {
    let cases = [
        (2, AuthenticationRequest::Other(2)),
        (3, AuthenticationRequest::CleartextPassword),
        (5, AuthenticationRequest::Md5Password),
        (7, AuthenticationRequest::Gss),
        (10, AuthenticationRequest::Sasl),
        (u32::MAX, AuthenticationRequest::Other(u32::MAX)),
    ];
    for (code, expected) in cases {
        let found = one(b'R', &code.to_be_bytes());
        assert_eq!(found, BackendMessage::AuthenticationRequest(expected));
    }
}

#[test]
fn keys_from_4_to_256_bytes() {
    for length in [0, 3, 4, 32, 256, 257, 5000] {
        let body = [&[0, 0, 0, 9][..], &vec![0x5a; length]].concat();
        let BackendMessage::BackendKeyData { process_id: 9, key } = one(b'K', &body) else {
            panic!("no key data");
        };
        let expected = CancelKey::new(&vec![0x5a; length]);
        assert_eq!(key, expected);
        assert_eq!(key.is_ok(), (4..=256).contains(&length), "{length}");
    }
}

#[test]
fn an_error_with_its_sqlstate() {
    let body = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0Fauth.c\0\0";
    let expected = BackendMessage::Error {
        sqlstate: SqlState::from_bytes(b"28P01"),
        message: "password authentication failed".into(),
    };
    assert_eq!(one(b'E', body), expected);
}

#[test]
fn an_error_is_read_as_far_as_it_was_captured() {
    let mut body = b"SFATAL\0VFATAL\0C53300\0M".to_vec();
    body.resize(1 << 20, b'x');
    body.extend(b"\0\0");
    let BackendMessage::Error { sqlstate, message } = one(b'E', &body) else {
        panic!("no error");
    };
    assert_eq!(sqlstate, Some(SqlState::TOO_MANY_CONNECTIONS));
    assert!(message.len() < BACKEND_ERROR_CAPTURE_BYTES_MAX && message.ends_with("xxx"));
    for odd in [
        &b""[..],
        b"\0",
        b"C",
        b"C57\0\0",
        b"C28P01",
        b"Mno code\0\0",
    ] {
        let BackendMessage::Error { sqlstate, .. } = one(b'E', odd) else {
            panic!("no error")
        };
        let expected = (odd == b"C28P01").then(|| SqlState::from_bytes(b"28P01").unwrap());
        assert_eq!(sqlstate, expected, "{odd:?}");
    }
}

#[test]
fn a_negotiated_version() {
    let body = b"\0\x03\0\x02\0\0\0\x01_pq_.x\0";
    let expected = BackendMessage::NegotiateProtocolVersion {
        newest: 0x0003_0002,
    };
    assert_eq!(one(b'v', body), expected);
}

#[test]
fn too_short_is_an_error_for_good() {
    for (kind, body) in [
        (b'R', &b"\0\0\0"[..]),
        (b'K', b"\0\0\0"),
        (b'Z', b""),
        (b'v', b"\0"),
    ] {
        let mut scanner = BackendScanner::new();
        let stream = [message(kind, body), message(b'Z', b"I")].concat();
        let expected = Err(BackendError::TooShort { kind, start: 0 });
        assert_eq!(scanner.feed(&stream, |event| panic!("{event:?}")), expected);
        assert_eq!(
            scanner.feed(b"Z\0\0\0\x05I", |event| panic!("{event:?}")),
            expected
        );
    }
    assert!(matches!(scan(b"Z\0\0\0\x03"), Err(BackendError::Frame(_))));
}
