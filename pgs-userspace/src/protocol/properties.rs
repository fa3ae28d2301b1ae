//! Properties that hold for every input: no panic, no difference by how the bytes were split, and
//! what was encoded is read back as it was.

use proptest::collection::vec;
use proptest::prelude::*;

use super::Parsed;
use super::backend::BackendError;
use super::backend::BackendEvent;
use super::backend::BackendScanner;
use super::cancel::CANCEL_REQUEST_CODE;
use super::cancel::CancelKey;
use super::cancel::CancelRequest;
use super::error_response::ErrorResponse;
use super::error_response::Severity;
use super::sqlstate::SqlState;
use super::startup;
use super::startup::FirstPacket;

fn first_packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// Codes that mean something, and any other.
fn code() -> impl Strategy<Value = u32> {
    let known = [
        0x0003_0000,
        0x0003_0002,
        0x0003_270f,
        0x0002_0000,
        startup::SSL_REQUEST_CODE,
        startup::GSSENC_REQUEST_CODE,
        CANCEL_REQUEST_CODE,
    ];
    prop_oneof![4 => prop::sample::select(known.to_vec()), 1 => any::<u32>()]
}

/// A string of a startup packet: any bytes but NUL, and not empty.
fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(1..=u8::MAX, 1..40)
}

/// A stream of backend messages, sound or not.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(&b"RKZEvSND"[..]);
    let sound = (kinds, vec(any::<u8>(), 0..300)).prop_map(|(kind, body)| {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), &body].concat()
    });
    let noise = vec(any::<u8>(), 0..20);
    vec(prop_oneof![20 => sound, 1 => noise], 0..8).prop_map(|messages| messages.concat())
}

fn pieces(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
    cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|window| &bytes[window[0]..window[1]])
        .collect()
}

fn scan(pieces: &[&[u8]]) -> (Vec<BackendEvent>, Result<bool, BackendError>) {
    let (mut scanner, mut events) = (BackendScanner::new(), Vec::new());
    let mut result = Ok(());
    for piece in pieces {
        result = scanner.feed(piece, |event| events.push(event));
    }
    (events, result.map(|()| scanner.at_message_boundary()))
}

proptest! {
    #[test]
    fn any_first_bytes_are_parsed_or_refused(bytes in vec(any::<u8>(), 0..64)) {
        if let Ok(Parsed::Complete { consumed, .. }) = startup::parse(&bytes) {
            prop_assert!(consumed <= bytes.len());
        }
    }

    #[test]
    fn any_body_of_a_first_packet(code in code(), body in vec(any::<u8>(), 0..400)) {
        if let Err(error) = startup::parse(&first_packet(code, &body)) {
            let bytes = error.refusal().map(|refusal| refusal.encode());
            prop_assert!(bytes.is_none_or(|bytes| bytes.starts_with(b"E")));
        }
    }

    #[test]
    fn a_first_packet_is_the_same_however_it_arrives(
        code in code(),
        body in vec(prop_oneof![Just(0), any::<u8>()], 0..100),
        follows in vec(any::<u8>(), 0..10),
    ) {
        let packet = first_packet(code, &body);
        let whole = startup::parse(&packet);
        for end in 0..packet.len() {
            match startup::parse(&packet[..end]) {
                Ok(Parsed::Incomplete { need }) => {
                    prop_assert!(end < need && need <= packet.len());
                }
                other => prop_assert!(false, "{end}: {other:?}"),
            }
        }
        prop_assert_eq!(startup::parse(&[packet, follows].concat()), whole);
    }

    #[test]
    fn parameters_are_read_back_and_the_packet_is_kept(
        user in text(),
        pairs in vec((text(), vec(1..=u8::MAX, 0..40)), 0..10),
    ) {
        let mut sent = vec![(b"user".to_vec(), user)];
        sent.extend(pairs);
        let mut body: Vec<u8> = Vec::new();
        for (name, value) in &sent {
            body.extend([&name[..], b"\0", value, b"\0"].concat());
        }
        body.push(0);
        let packet = first_packet(0x0003_0000, &body);
        let Ok(Parsed::Complete { value: FirstPacket::Startup(message), consumed }) =
            startup::parse(&packet)
        else {
            return Err(TestCaseError::fail("not a startup message"));
        };
        prop_assert_eq!(consumed, packet.len());
        prop_assert_eq!(&message.raw()[..], &packet[..]);
        let read: Vec<_> = message.parameters().iter().collect();
        let expected: Vec<_> = sent.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        prop_assert_eq!(read, expected);
        prop_assert!(!message.user().is_empty() && !message.database().is_empty());
    }

    #[test]
    fn any_options_are_split(options in vec(1..=u8::MAX, 0..60), tenant in "[a-z0-9_]{1,20}") {
        let ours = format!(" -c pgs.tenant={tenant}");
        let body = [b"user\0u\0options\0", &options[..], b" x", ours.as_bytes(), b"\0\0"].concat();
        let packet = first_packet(0x0003_0000, &body);
        let Ok(Parsed::Complete { value: FirstPacket::Startup(message), .. }) =
            startup::parse(&packet)
        else {
            return Err(TestCaseError::fail("not a startup message"));
        };
        prop_assert_eq!(message.tenant_option(), Some(tenant.into_bytes()));
    }

    #[test]
    fn a_cancel_request_is_read_back(process_id: u32, key in vec(any::<u8>(), 4..=256)) {
        let request = CancelRequest { process_id, key: CancelKey::new(&key).unwrap() };
        let packet = request.encode();
        let expected =
            Parsed::Complete { value: FirstPacket::Cancel(request), consumed: packet.len() };
        prop_assert_eq!(startup::parse(&packet), Ok(expected));
    }

    #[test]
    fn a_stream_is_the_same_however_it_arrives(
        bytes in stream(),
        cuts in vec(any::<usize>(), 0..12),
    ) {
        let whole = scan(&[&bytes]);
        prop_assert_eq!(scan(&pieces(&bytes, cuts)), whole.clone());
        let one_by_one: Vec<_> = bytes.chunks(1).collect();
        if !bytes.is_empty() {
            prop_assert_eq!(scan(&one_by_one), whole);
        }
    }

    #[test]
    fn any_stream_is_scanned_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let (events, _) = scan(&[&bytes]);
        let mut end = 0;
        for event in events {
            prop_assert!(event.start == end && event.end <= bytes.len() as u64);
            end = event.end;
        }
    }

    #[test]
    fn an_error_response_is_read_back(
        message in "\\PC{0,50}",
        detail in prop::option::of("\\PC{0,50}"),
        hint in prop::option::of("\\PC{0,50}"),
    ) {
        let sqlstate = SqlState::CANNOT_CONNECT_NOW;
        let response =
            ErrorResponse { severity: Severity::Fatal, sqlstate, message, detail, hint };
        let bytes = response.encode();
        let length = u32::from_be_bytes(*bytes[1..].first_chunk().unwrap());
        prop_assert_eq!(length as usize + 1, bytes.len());
        let field = |code| {
            let mut fields = ErrorResponse::fields(&bytes[5..]);
            let value = fields.find(|(found, _)| *found == code).map(|(_, value)| value);
            value.map(|value| String::from_utf8(value.to_vec()).unwrap())
        };
        prop_assert_eq!(field(b'M'), Some(response.message));
        prop_assert_eq!(field(b'D'), response.detail);
        prop_assert_eq!(field(b'H'), response.hint);
    }

    #[test]
    fn any_body_has_fields(body in vec(prop_oneof![Just(0), any::<u8>()], 0..60)) {
        for (code, value) in ErrorResponse::fields(&body) {
            prop_assert!(code != 0 && !value.contains(&0));
        }
    }
}
