//! An ErrorResponse: what a client is told when the connection is refused or ended.

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;

use super::sqlstate::SqlState;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The command failed, the session goes on.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    /// As it stands in the message; never translated.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// An error in the words that a client shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// How bad it is.
    pub severity: Severity,
    /// What kind it is.
    pub sqlstate: SqlState,
    /// What is wrong, in one sentence.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// The way out.
    pub hint: Option<String>,
}

impl ErrorResponse {
    /// The whole message, kind byte and length word included.
    ///
    /// Fields in the order of `send_message_to_frontend` in PostgreSQL's
    /// `src/backend/utils/error/elog.c`. A NUL would end a field early, so none is let into a text.
    pub fn encode(&self) -> Bytes {
        let Self {
            severity,
            sqlstate,
            message,
            detail,
            hint,
        } = self;
        let mut body = BytesMut::new();
        let mut field = |code: u8, text: &str| {
            body.put_u8(code);
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.put_u8(0);
        };
        field(b'S', severity.as_str());
        field(b'V', severity.as_str());
        field(b'C', sqlstate.as_str());
        field(b'M', message);
        if let Some(detail) = detail {
            field(b'D', detail);
        }
        if let Some(hint) = hint {
            field(b'H', hint);
        }
        body.put_u8(0);

        let mut packet = BytesMut::with_capacity(1 + 4 + body.len());
        packet.put_u8(b'E');
        // The texts are pgs's own, with names of at most 63 bytes in them: far below 4 GiB.
        packet.put_u32((4 + body.len()) as u32);
        packet.put_slice(&body);
        packet.freeze()
    }

    /// The same for a client of protocol 1 or 2, which knows neither length words nor fields.
    pub fn encode_protocol_2(&self) -> Bytes {
        let Self {
            severity, message, ..
        } = self;
        let text = format!("E{}:  {message}\n", severity.as_str()).replace('\0', "");
        let mut packet = BytesMut::from(text.as_bytes());
        packet.put_u8(0);
        packet.freeze()
    }

    /// The fields of a message's body, in order, each as its code and its value. A body that is cut
    /// short yields what there is.
    pub fn fields(body: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = body;
        std::iter::from_fn(move || {
            let (&code, tail) = rest.split_first().filter(|(code, _)| **code != 0)?;
            let end = tail
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(tail.len());
            rest = tail.get(end + 1..).unwrap_or_default();
            Some((code, &tail[..end]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> ErrorResponse {
        ErrorResponse {
            severity: Severity::Fatal,
            sqlstate: SqlState::CANNOT_CONNECT_NOW,
            message: "not yet".into(),
            detail: None,
            hint: Some("wait".into()),
        }
    }

    #[test]
    fn fields_in_the_servers_order() {
        let expected = b"E\0\0\0\x29SFATAL\0VFATAL\0C57P03\0Mnot yet\0Hwait\0\0";
        assert_eq!(response().encode(), &expected[..]);
        assert_eq!(expected.len(), 1 + 0x29);
        let detailed = ErrorResponse {
            detail: Some("why".into()),
            ..response()
        }
        .encode();
        let fields: Vec<_> = ErrorResponse::fields(&detailed[5..]).collect();
        assert_eq!(
            fields[3..],
            [(b'M', &b"not yet"[..]), (b'D', b"why"), (b'H', b"wait")]
        );
    }

    #[test]
    fn a_nul_does_not_forge_a_field() {
        let forged = ErrorResponse {
            message: "x\0C00000".into(),
            ..response()
        };
        let bytes = forged.encode();
        let fields: Vec<_> = ErrorResponse::fields(&bytes[5..]).collect();
        assert_eq!(fields.len(), 5);
        assert_eq!(fields[3], (b'M', &b"xC00000"[..]));
    }

    #[test]
    fn the_form_of_protocol_2() {
        assert_eq!(response().encode_protocol_2(), &b"EFATAL:  not yet\n\0"[..]);
    }
}
