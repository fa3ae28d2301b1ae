//! What must hold for whatever bytes a stranger sends, one function for each parser.
//!
//! libFuzzer calls these with inputs that it makes up (`cargo xtask fuzz`); the tests of this crate
//! call them with the corpus, so that what was once found is looked at with every test run. A
//! property that does not hold panics, as libFuzzer expects.
#![expect(
    clippy::panic,
    reason = "a panic is how a fuzz target says that it found something"
)]

use pgs::config::configuration::{Effective, Origin};
use pgs::config::file;
use pgs::config::limits::{PROXY_HEADER_BYTES_MAX, STARTUP_PACKET_BYTES_MAX};
use pgs::protocol::Parsed;
use pgs::protocol::backend::{BackendError, BackendEvent, BackendScanner};
use pgs::protocol::cancel::CancelKey;
use pgs::protocol::proxy::{self, ProxyHeader};
use pgs::protocol::startup::{self, FirstPacket, StartupError};

/// A target: its name, as that of its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// How many prefixes of an input are looked at.
const PREFIXES_MAX: usize = 256;

/// All targets.
pub const TARGETS: &[Target] = &[
    ("startup", startup),
    ("message", message),
    ("cancel", cancel),
    ("proxy", proxy),
    ("config", config),
];

/// The first packet of a connection: arriving byte by byte it is what it is arriving at once, what
/// follows it does not matter, and what is forwarded is what was sent.
pub fn startup(input: &[u8]) {
    let whole = startup::parse(input);
    let most = input.len().min(STARTUP_PACKET_BYTES_MAX);
    // Every prefix of a short packet, and of a long one so many.
    for end in (0..most).step_by((most / PREFIXES_MAX).max(1)) {
        match (startup::parse(&input[..end]), &whole) {
            (Ok(Parsed::Incomplete { need }), _) => {
                assert!(
                    need > end,
                    "{end} bytes are not enough, but {need} would be"
                );
            }
            // Decided early: then more bytes may not change it.
            (early, whole) => assert_eq!(&early, whole, "decided otherwise after {end} bytes"),
        }
    }
    match whole {
        Ok(Parsed::Complete { value, consumed }) => {
            assert!(consumed <= input.len(), "consumed more than there was");
            if let FirstPacket::Startup(message) = &value {
                assert_eq!(
                    message.raw()[..],
                    input[..consumed],
                    "not forwarded as it came"
                );
                assert!(
                    !message.user().is_empty(),
                    "a startup message without a user"
                );
                assert!(!message.database().is_empty(), "without a database");
                drop((
                    message.options(),
                    message.tenant_option(),
                    message.replication(),
                ));
            }
        }
        Ok(Parsed::Incomplete { need }) => assert!(need > input.len()),
        Err(error) => refusal(&error),
    }
}

/// What is said of a packet that is none can be said: with an SQLSTATE of five characters.
fn refusal(error: &StartupError) {
    assert!(!error.to_string().is_empty());
    if let Some(refusal) = error.refusal() {
        let code = refusal.sqlstate();
        assert_eq!(code.as_str().len(), 5, "an SQLSTATE of another length");
    }
}

/// What a backend sends: the same messages however it is cut into pieces, each in its place.
///
/// The first byte says how the rest is cut.
pub fn message(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else {
        return;
    };
    let at_once = scan(stream.chunks(stream.len().max(1)));
    let in_pieces = scan(stream.chunks(usize::from(cut).max(1)));
    assert_eq!(at_once, in_pieces, "other messages in pieces of {cut}");
    let (events, ended) = at_once;
    let mut last = 0;
    for event in &events {
        assert!(
            event.start >= last && event.end > event.start,
            "out of order: {event:?}"
        );
        last = event.end;
    }
    assert!(last <= stream.len() as u64, "beyond the end");
    if let Ok(offset) = ended {
        assert_eq!(offset, stream.len() as u64, "bytes that nobody counted");
    }
}

/// The messages, and how many bytes there were or why it ended before.
fn scan<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<BackendEvent>, Result<u64, BackendError>) {
    let mut scanner = BackendScanner::new();
    let mut events = Vec::new();
    for piece in pieces {
        if let Err(error) = scanner.feed(piece, |event| events.push(event)) {
            assert_eq!(
                scanner.feed(b"Z", |_| panic!("a message after an error")),
                Err(error)
            );
            return (events, Err(error));
        }
    }
    (events, Ok(scanner.offset()))
}

/// A cancel request: what is read is what is sent on, and a key never shows.
pub fn cancel(input: &[u8]) {
    if let Ok(key) = CancelKey::new(input) {
        assert_eq!(key.as_bytes(), input);
        let other = vec![0; input.len()];
        let other = CancelKey::new(&other).map(|key| format!("{key:?}"));
        assert_eq!(
            Ok(format!("{key:?}")),
            other,
            "what is shown depends on the key"
        );
    }
    // As a packet: the header is made, so that every input gets past it.
    let length = input.len() + 8;
    let Ok(word) = u32::try_from(length) else {
        return;
    };
    let code = pgs::protocol::cancel::CANCEL_REQUEST_CODE;
    let packet = [&word.to_be_bytes()[..], &code.to_be_bytes(), input].concat();
    match startup::parse(&packet) {
        Ok(Parsed::Complete {
            value: FirstPacket::Cancel(request),
            consumed,
        }) => {
            assert_eq!(consumed, packet.len());
            assert_eq!(
                request.encode()[..],
                packet[..],
                "another request than came"
            );
        }
        Ok(other) => panic!("a cancel request became {other:?}"),
        Err(error) => assert_eq!(
            error.refusal(),
            None,
            "a cancel request is answered: {error}"
        ),
    }
}

/// A PROXY protocol header: arriving in parts it is what it is at once, and it is bounded.
pub fn proxy(input: &[u8]) {
    let whole = proxy::parse(input);
    for end in 0..input.len().min(PROXY_HEADER_BYTES_MAX + 1) {
        match (proxy::parse(&input[..end]), &whole) {
            (Ok(Parsed::Incomplete { need }), _) => {
                assert!(
                    need > end,
                    "{end} bytes are not enough, but {need} would be"
                );
                assert!(need <= PROXY_HEADER_BYTES_MAX, "waits for {need} bytes");
            }
            (early, whole) => assert_eq!(&early, whole, "decided otherwise after {end} bytes"),
        }
    }
    match whole {
        Ok(Parsed::Complete { value, consumed }) => {
            assert!(consumed <= input.len().min(PROXY_HEADER_BYTES_MAX));
            if let ProxyHeader::Client(address) = value {
                assert!(!address.to_string().is_empty());
            }
        }
        Ok(Parsed::Incomplete { need }) => assert!(need > input.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A configuration file: every mistake has a place in it and words, and a file without one gives
/// values that can be said again as they are shown.
pub fn config(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let parsed = file::parse(text);
    match &parsed {
        Ok(effective) => shown_can_be_said(effective),
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a reason");
            // The end of a text may be named, which is behind its last line.
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            for mistake in mistakes {
                assert!(!mistake.message.is_empty(), "a mistake without a word");
                let line = mistake.line.unwrap_or(1);
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
            }
        }
    }
    assert_eq!(parsed, file::parse(text), "read twice, it is another");
}

fn shown_can_be_said(effective: &Effective) {
    let mut again = Effective::default();
    for row in effective.configuration().rows() {
        if effective.origin(&row) == Origin::Default {
            continue;
        }
        let said = again.assign(row.section, row.name, &row.value, effective.origin(&row));
        assert_eq!(
            said,
            Ok(()),
            "{} = {:?} is not understood",
            row.name,
            row.value
        );
    }
    assert_eq!(again.configuration(), effective.configuration());
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_of_every_target_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (name, target) in TARGETS {
            let mut inputs = 0;
            for entry in fs::read_dir(corpus.join(name)).unwrap() {
                let input = fs::read(entry.unwrap().path()).unwrap();
                target(&input);
                inputs += 1;
            }
            assert!(inputs > 5, "the corpus of {name} has {inputs} inputs");
        }
    }

    #[test]
    fn no_corpus_is_without_a_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for entry in fs::read_dir(corpus).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(
                TARGETS.iter().any(|(target, _)| *target == name),
                "{name:?}"
            );
        }
    }
}
