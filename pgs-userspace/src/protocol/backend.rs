//! What a backend says during authentication, learnt while its bytes are forwarded untouched.

use super::cancel::CancelKey;
use super::cancel::CancelKeyLengthError;
use super::error_response::ErrorResponse;
use super::message::Frame;
use super::message::FrameError;
use super::message::FrameScanner;
use super::sqlstate::SqlState;
use crate::config::limits::BACKEND_ERROR_CAPTURE_BYTES_MAX;
use crate::config::limits::CANCEL_KEY_BYTES_MAX;

/// Kind bytes, from PostgreSQL's `src/include/libpq/protocol.h`.
mod kind {
    pub(super) const AUTHENTICATION: u8 = b'R';
    pub(super) const BACKEND_KEY_DATA: u8 = b'K';
    pub(super) const ERROR_RESPONSE: u8 = b'E';
    pub(super) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub(super) const READY_FOR_QUERY: u8 = b'Z';
}

/// How the server wants the client to prove itself: `AUTH_REQ_*` of PostgreSQL's
/// `src/include/libpq/protocol.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationRequest {
    /// A password in the clear.
    CleartextPassword,
    /// A salted MD5 of the password.
    Md5Password,
    /// GSSAPI, SSPI, or a further step of either.
    Gss,
    /// The list of SASL mechanisms.
    Sasl,
    /// A further step of SASL.
    SaslContinue,
    /// The last step of SASL: the server's own proof.
    SaslFinal,
    /// One that this table does not have.
    Other(u32),
}

/// One thing the backend said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendMessage {
    /// The client has proved itself.
    AuthenticationOk,
    /// The client is to prove itself.
    AuthenticationRequest(AuthenticationRequest),
    /// By what the backend can be cancelled; a key of an impossible length can not be used.
    BackendKeyData {
        /// Of the backend, within its own container.
        process_id: u32,
        /// The secret.
        key: Result<CancelKey, CancelKeyLengthError>,
    },
    /// The backend waits for a query.
    ReadyForQuery {
        /// `I` idle, `T` in a transaction, `E` in a failed one.
        transaction: u8,
    },
    /// The backend refuses or gives up.
    Error {
        /// `None` where there was none, or not within the bytes that are looked at.
        sqlstate: Option<SqlState>,
        /// The primary message, as far as it was looked at; for logs.
        message: String,
    },
    /// The client asked for more than the server knows.
    NegotiateProtocolVersion {
        /// The version word of the newest that the server speaks; servers before 18 send the minor
        /// half alone.
        newest: u32,
    },
    /// ParameterStatus, NoticeResponse, or anything else.
    Other {
        /// The kind byte.
        kind: u8,
    },
}

/// Something the backend said, and where in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendEvent {
    /// Offset in the stream of the first byte of the message.
    pub start: u64,
    /// Offset in the stream of the first byte after the message.
    pub end: u64,
    /// What it said.
    pub message: BackendMessage,
}

/// The stream does not make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// A message with an impossible length.
    #[error("backend: {0}")]
    Frame(#[from] FrameError),
    /// A message too short for what it is.
    #[error("backend: message {kind:?} at byte {start} is too short", kind = char::from(*kind))]
    TooShort {
        /// The kind byte.
        kind: u8,
        /// Offset in the stream of the kind byte.
        start: u64,
    },
}

/// Listens to a backend from its first byte on, in whatever pieces they arrive.
///
/// ```
/// use pgs::protocol::backend::{BackendMessage, BackendScanner};
///
/// let mut scanner = BackendScanner::new();
/// let mut ready_at = None;
/// for piece in [&b"R\0\0\0\x08\0\0"[..], b"\0\0Z\0\0\0\x05", b"I"] {
///     scanner.feed(piece, |event| {
///         if let BackendMessage::ReadyForQuery { .. } = event.message {
///             ready_at = Some(event.end);
///         }
///     })?;
/// }
/// assert_eq!(ready_at, Some(15));
/// assert!(scanner.at_message_boundary());
/// # Ok::<(), pgs::protocol::backend::BackendError>(())
/// ```
#[derive(Debug)]
pub struct BackendScanner {
    frames: FrameScanner,
    malformed: Option<BackendError>,
}

impl Default for BackendScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl BackendScanner {
    /// Begins at a boundary: what the backend sends first after the startup packet.
    pub fn new() -> Self {
        Self {
            frames: FrameScanner::new(capture_max),
            malformed: None,
        }
    }

    /// Looks at the next bytes and tells of each message that ends within them, in order.
    ///
    /// Once it has failed, it fails in the same way for ever.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut on_event: impl FnMut(BackendEvent),
    ) -> Result<(), BackendError> {
        let Self { frames, malformed } = self;
        let framed = frames.feed(bytes, |frame| {
            if malformed.is_some() {
                return;
            }
            match BackendMessage::parse(frame) {
                Some(message) => {
                    on_event(BackendEvent {
                        start: frame.start,
                        end: frame.end,
                        message,
                    });
                }
                None => {
                    let Frame { kind, start, .. } = frame;
                    *malformed = Some(BackendError::TooShort { kind, start });
                }
            }
        });
        match malformed {
            Some(error) => Err(*error),
            None => Ok(framed?),
        }
    }

    /// Bytes seen so far.
    pub fn offset(&self) -> u64 {
        self.frames.offset()
    }

    /// Whether the last byte seen was the last one of a message (or none was seen yet).
    pub fn at_message_boundary(&self) -> bool {
        self.frames.at_message_boundary()
    }
}

impl BackendMessage {
    /// `None` if it is too short for what it is.
    fn parse(frame: Frame<'_>) -> Option<Self> {
        let word = |at: usize| -> Option<u32> {
            frame
                .body
                .get(at..)
                .and_then(|rest| rest.first_chunk())
                .map(|b| u32::from_be_bytes(*b))
        };
        Some(match frame.kind {
            kind::AUTHENTICATION => match word(0)? {
                0 => Self::AuthenticationOk,
                code => Self::AuthenticationRequest(AuthenticationRequest::from_code(code)),
            },
            kind::BACKEND_KEY_DATA => {
                let process_id = word(0)?;
                let captured = frame.body.get(4..)?;
                // Captured is one byte more than the longest key, so what is cut is too long.
                let key = CancelKey::new(captured).map_err(|_| CancelKeyLengthError {
                    length: frame.body_length() - 4,
                });
                Self::BackendKeyData { process_id, key }
            }
            kind::READY_FOR_QUERY => Self::ReadyForQuery {
                transaction: *frame.body.first()?,
            },
            kind::NEGOTIATE_PROTOCOL_VERSION => Self::NegotiateProtocolVersion { newest: word(0)? },
            kind::ERROR_RESPONSE => Self::error(frame.body),
            kind => Self::Other { kind },
        })
    }

    fn error(body: &[u8]) -> Self {
        let field = |code| ErrorResponse::fields(body).find(|(found, _)| *found == code);
        let sqlstate = field(b'C').and_then(|(_, value)| SqlState::from_bytes(value));
        let message = field(b'M').map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        Self::Error {
            sqlstate,
            message: message.unwrap_or_default(),
        }
    }
}

impl AuthenticationRequest {
    fn from_code(code: u32) -> Self {
        match code {
            3 => Self::CleartextPassword,
            5 => Self::Md5Password,
            7..=9 => Self::Gss,
            10 => Self::Sasl,
            11 => Self::SaslContinue,
            12 => Self::SaslFinal,
            other => Self::Other(other),
        }
    }
}

fn capture_max(kind: u8) -> usize {
    match kind {
        kind::AUTHENTICATION | kind::NEGOTIATE_PROTOCOL_VERSION => 4,
        // One byte past the longest key, so that one too long is seen to be so.
        kind::BACKEND_KEY_DATA => 4 + CANCEL_KEY_BYTES_MAX + 1,
        kind::READY_FOR_QUERY => 1,
        kind::ERROR_RESPONSE => BACKEND_ERROR_CAPTURE_BYTES_MAX,
        _ => 0,
    }
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
