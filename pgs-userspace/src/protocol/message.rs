//! Where the messages of a stream begin and end, in whatever pieces the stream arrives.
//!
//! After the first packet both directions consist of messages: one byte that says the kind, a
//! length word that counts itself and what follows, and the body. [`FrameScanner`] walks over them
//! while somebody else forwards the very same bytes, and keeps no more than a header and the
//! beginning of one body.

/// Kind byte and length word.
pub const HEADER_BYTES: usize = 5;

/// The length word counts itself.
const LENGTH_WORD_BYTES: u32 = 4;

/// One whole message, told about when its last byte was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The kind byte.
    pub kind: u8,
    /// Offset in the stream of the kind byte.
    pub start: u64,
    /// Offset in the stream of the first byte after the message.
    pub end: u64,
    /// The beginning of the body: all of it, or as much as was to be captured.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Length of the whole body in bytes, however much of it was captured.
    pub fn body_length(&self) -> usize {
        // A body is shorter than 2 GiB.
        (self.end - self.start) as usize - HEADER_BYTES
    }
}

/// A length word that no message can have. The stream is out of step: nothing after it means
/// anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "message {kind:?} at byte {start} says it has {length} bytes: a length is a positive 32-bit \
     number of at least {LENGTH_WORD_BYTES}",
    kind = char::from(*kind)
)]
pub struct FrameError {
    /// The kind byte.
    pub kind: u8,
    /// What the length word said.
    pub length: u32,
    /// Offset in the stream of the kind byte.
    pub start: u64,
}

/// Length in bytes of the message that `bytes` begins with, once all of it is there. A message with
/// an impossible length, or of more than `most` bytes, takes all there is: whoever gets it will say
/// what is wrong.
pub fn first_message_bytes(bytes: &[u8], most: usize) -> Option<usize> {
    let word = bytes.get(1..HEADER_BYTES)?.try_into().ok()?;
    let length = u32::from_be_bytes(word);
    let whole = 1 + length as usize;
    if length < LENGTH_WORD_BYTES || whole > most {
        return Some(bytes.len());
    }
    (bytes.len() >= whole).then_some(whole)
}

/// Walks over a stream of messages.
#[derive(Debug)]
pub struct FrameScanner {
    /// How many bytes of a body to capture, by the kind byte.
    capture_max: fn(u8) -> usize,
    /// Bytes seen so far.
    offset: u64,
    state: State,
    capture: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    ExpectHeader {
        header: [u8; HEADER_BYTES],
        filled: usize,
    },
    ExpectBody {
        kind: u8,
        start: u64,
        remaining: usize,
    },
    OutOfStep(FrameError),
}

impl State {
    const BOUNDARY: Self = Self::ExpectHeader {
        header: [0; HEADER_BYTES],
        filled: 0,
    };
}

impl FrameScanner {
    /// Begins at a boundary. `capture_max` bounds how many bytes of a message's body are kept for
    /// whoever is told of it, by the kind byte.
    pub fn new(capture_max: fn(u8) -> usize) -> Self {
        Self {
            capture_max,
            offset: 0,
            state: State::BOUNDARY,
            capture: Vec::new(),
        }
    }

    /// Looks at the next bytes of the stream and tells of each message that ends within them.
    ///
    /// Once it has failed, it fails in the same way for ever.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut on_frame: impl FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        let mut rest = bytes;
        loop {
            rest = match self.state {
                State::OutOfStep(error) => return Err(error),
                _ if rest.is_empty() => return Ok(()),
                State::ExpectHeader { header, filled } => self.take_header(header, filled, rest),
                State::ExpectBody {
                    kind,
                    start,
                    remaining,
                } => self.take_body(kind, start, remaining, rest),
            };
            if let State::ExpectBody {
                kind,
                start,
                remaining: 0,
            } = self.state
            {
                on_frame(Frame {
                    kind,
                    start,
                    end: self.offset,
                    body: &self.capture,
                });
                self.state = State::BOUNDARY;
            }
        }
    }

    /// Bytes seen so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the last byte seen was the last one of a message (or none was seen yet).
    pub fn at_message_boundary(&self) -> bool {
        matches!(self.state, State::ExpectHeader { filled: 0, .. })
    }

    /// Returns what is left of `bytes`.
    fn take_header<'a>(
        &mut self,
        mut header: [u8; HEADER_BYTES],
        filled: usize,
        bytes: &'a [u8],
    ) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - filled));
        let start = self.offset - filled as u64;
        let filled_now = filled + taken.len();
        header[filled..filled_now].copy_from_slice(taken);
        self.offset += taken.len() as u64;
        self.state = if filled_now == HEADER_BYTES {
            let [kind, length @ ..] = header;
            self.begin_body(kind, u32::from_be_bytes(length), start)
        } else {
            State::ExpectHeader {
                header,
                filled: filled_now,
            }
        };
        rest
    }

    fn begin_body(&mut self, kind: u8, length: u32, start: u64) -> State {
        // The length word is signed: `pq_getmessage` of PostgreSQL's `src/backend/libpq/pqcomm.c`.
        let possible = i32::try_from(length).is_ok() && length >= LENGTH_WORD_BYTES;
        let Some(body_length) = length.checked_sub(LENGTH_WORD_BYTES).filter(|_| possible) else {
            return State::OutOfStep(FrameError {
                kind,
                length,
                start,
            });
        };
        self.capture.clear();
        State::ExpectBody {
            kind,
            start,
            remaining: body_length as usize,
        }
    }

    /// Returns what is left of `bytes`.
    fn take_body<'a>(
        &mut self,
        kind: u8,
        start: u64,
        remaining: usize,
        bytes: &'a [u8],
    ) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(remaining));
        let room = (self.capture_max)(kind).saturating_sub(self.capture.len());
        self.capture
            .extend_from_slice(&taken[..taken.len().min(room)]);
        self.offset += taken.len() as u64;
        self.state = State::ExpectBody {
            kind,
            start,
            remaining: remaining - taken.len(),
        };
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], capture_max: fn(u8) -> usize) -> Vec<(u8, u64, u64, Vec<u8>, bool)> {
        let mut found = Vec::new();
        let mut scanner = FrameScanner::new(capture_max);
        let note = |frame: Frame<'_>| {
            let whole = frame.body.len() == frame.body_length();
            found.push((
                frame.kind,
                frame.start,
                frame.end,
                frame.body.to_vec(),
                whole,
            ));
        };
        scanner.feed(bytes, note).unwrap();
        assert_eq!(scanner.offset(), bytes.len() as u64);
        found
    }

    #[test]
    fn the_first_message_is_cut_off_when_it_is_whole() {
        assert_eq!(first_message_bytes(b"p\0\0\0", 9), None);
        assert_eq!(first_message_bytes(b"p\0\0\0\x05", 9), None);
        assert_eq!(first_message_bytes(b"p\0\0\0\x05xQ", 9), Some(6));
        assert_eq!(first_message_bytes(b"p\0\0\0\x03xQ", 9), Some(7));
        assert_eq!(first_message_bytes(b"p\0\0\0\x09xQ", 9), Some(7));
        assert_eq!(first_message_bytes(b"p\xff\xff\xff\xffxQ", 9), Some(7));
    }

    #[test]
    fn messages_with_and_without_a_body() {
        let found = frames(b"S\0\0\0\x04Z\0\0\0\x05I", |_| 10);
        assert_eq!(
            found,
            [
                (b'S', 0, 5, vec![], true),
                (b'Z', 5, 11, b"I".to_vec(), true)
            ]
        );
    }

    #[test]
    fn a_capture_is_bounded_by_kind() {
        let found = frames(b"D\0\0\0\x08abcdE\0\0\0\x08efgh", |kind| {
            if kind == b'E' { 2 } else { 0 }
        });
        assert_eq!(
            found,
            [
                (b'D', 0, 9, vec![], false),
                (b'E', 9, 18, b"ef".to_vec(), false)
            ]
        );
    }

    #[test]
    fn boundaries_show() {
        let mut scanner = FrameScanner::new(|_| 0);
        assert!(scanner.at_message_boundary());
        for byte in b"Z\0\0\0\x05" {
            scanner.feed(&[*byte], |frame| panic!("{frame:?}")).unwrap();
            assert!(!scanner.at_message_boundary());
        }
        let mut ends = Vec::new();
        scanner.feed(b"I", |frame| ends.push(frame.end)).unwrap();
        assert!(scanner.at_message_boundary());
        assert_eq!(ends, [6]);
    }

    #[test]
    fn impossible_lengths_end_it_for_good() {
        for length in [0, 3, 0x8000_0000, u32::MAX] {
            let mut scanner = FrameScanner::new(|_| 0);
            let stream = [&b"Z\0\0\0\x05IX"[..], &length.to_be_bytes()].concat();
            let mut seen = 0;
            let expected = Err(FrameError {
                kind: b'X',
                length,
                start: 6,
            });
            assert_eq!(scanner.feed(&stream, |_| seen += 1), expected);
            assert_eq!(seen, 1);
            assert_eq!(scanner.feed(b"", |_| seen += 1), expected);
            assert_eq!(scanner.feed(b"Z\0\0\0\x05I", |_| seen += 1), expected);
            assert_eq!(seen, 1);
            assert!(!scanner.at_message_boundary());
        }
    }

    #[test]
    fn a_gigabyte_is_walked_over_without_being_kept() {
        let mut scanner = FrameScanner::new(|_| 8);
        scanner
            .feed(b"D\x40\0\0\x04", |_| panic!("not yet"))
            .unwrap();
        let chunk = vec![0; 1 << 20];
        let mut seen = 0;
        for _ in 0..1024 {
            scanner.feed(&chunk, |frame| seen += frame.end).unwrap();
        }
        assert_eq!(seen, (1 << 30) + 5);
        assert!(scanner.at_message_boundary());
    }
}
