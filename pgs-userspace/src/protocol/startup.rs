//! The first packet of a connection: a startup message, a request to encrypt, or a cancel request.
//!
//! The rules are those of `ProcessStartupPacket` in PostgreSQL's
//! `src/backend/tcop/backend_startup.c`: what it lets through is let through, what it answers with
//! an error gets the same error, and what it closes without a word is closed without a word.

use bytes::Bytes;

use super::Parsed;
use super::cancel::CANCEL_REQUEST_CODE;
use super::cancel::CANCEL_REQUEST_HEADER_BYTES;
use super::cancel::CancelKey;
use super::cancel::CancelKeyLengthError;
use super::cancel::CancelRequest;
use super::parameters::StartupParameters;
use super::refusal::Refusal;
use super::version::ProtocolVersion;
use crate::config::limits::STARTUP_PACKET_BYTES_MAX;
use crate::config::limits::STARTUP_PACKET_BYTES_MIN;

/// `NEGOTIATE_SSL_CODE`, `PG_PROTOCOL(1234, 5679)` of PostgreSQL's `src/include/libpq/pqcomm.h`.
pub const SSL_REQUEST_CODE: u32 = 1234 << 16 | 5679;

/// `NEGOTIATE_GSS_CODE`, `PG_PROTOCOL(1234, 5680)` of PostgreSQL's `src/include/libpq/pqcomm.h`.
pub const GSSENC_REQUEST_CODE: u32 = 1234 << 16 | 5680;

/// First byte of a TLS record that holds a handshake message. As the first byte of a length word it
/// would make a packet of hundreds of megabytes.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// An SSLRequest.
pub fn ssl_request() -> [u8; STARTUP_PACKET_BYTES_MIN] {
    // Length word and code are all of it.
    let (length, code) = (STARTUP_PACKET_BYTES_MIN as u64, u64::from(SSL_REQUEST_CODE));
    (length << 32 | code).to_be_bytes()
}

/// What came first on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// A TLS ClientHello with nothing before it (PostgreSQL 17 and later). Nothing is consumed.
    DirectTls,
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest.
    Cancel(CancelRequest),
    /// StartupMessage.
    Startup(StartupMessage),
}

/// Why a first packet is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length word is out of bounds. Often not PostgreSQL's protocol at all.
    #[error(
        "first packet says it has {length} bytes: \
         {STARTUP_PACKET_BYTES_MIN} to {STARTUP_PACKET_BYTES_MAX} are possible"
    )]
    Length {
        /// What the length word said.
        length: u32,
    },
    /// A CancelRequest too short to hold a process id.
    #[error("CancelRequest of {length} bytes: it begins with {CANCEL_REQUEST_HEADER_BYTES}")]
    CancelLength {
        /// What the length word said.
        length: usize,
    },
    /// A CancelRequest with a key that no backend can have issued.
    #[error("CancelRequest: {0}")]
    CancelKey(#[from] CancelKeyLengthError),
    /// A version that no server speaks.
    #[error("startup packet asks for protocol {0}")]
    UnsupportedProtocol(ProtocolVersion),
    /// The parameters do not end where the packet ends.
    #[error("startup packet of {length} bytes does not end with its terminator")]
    Layout {
        /// What the length word said.
        length: usize,
    },
    /// No user, or an empty one.
    #[error("startup packet names no user")]
    MissingUser,
}

impl StartupError {
    /// What the client is told; `None` where PostgreSQL closes without a word.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Length { .. } | Self::CancelLength { .. } | Self::CancelKey(_) => None,
            Self::UnsupportedProtocol(version) => {
                Some(Refusal::UnsupportedProtocol { version: *version })
            }
            Self::Layout { .. } => Some(Refusal::MalformedStartup),
            Self::MissingUser => Some(Refusal::MissingUser),
        }
    }
}

/// Reads the first packet of a connection, or the one that follows an answered SSLRequest or
/// GSSENCRequest, from the beginning of `buf`.
///
/// A length word out of bounds is an error as soon as its four bytes are there.
pub fn parse(buf: &[u8]) -> Result<Parsed<FirstPacket>, StartupError> {
    if buf.first() == Some(&TLS_HANDSHAKE) {
        return Ok(Parsed::Complete {
            value: FirstPacket::DirectTls,
            consumed: 0,
        });
    }
    let Some(word) = buf.first_chunk() else {
        return Ok(Parsed::Incomplete {
            need: STARTUP_PACKET_BYTES_MIN,
        });
    };
    let length = u32::from_be_bytes(*word);
    let consumed = usize::try_from(length)
        .ok()
        .filter(|length| (STARTUP_PACKET_BYTES_MIN..=STARTUP_PACKET_BYTES_MAX).contains(length))
        .ok_or(StartupError::Length { length })?;
    let Some(packet) = buf.get(..consumed) else {
        return Ok(Parsed::Incomplete { need: consumed });
    };
    let value = parse_packet(packet)?;
    Ok(Parsed::Complete { value, consumed })
}

/// `packet` is whole: its length word is right and within bounds.
fn parse_packet(packet: &[u8]) -> Result<FirstPacket, StartupError> {
    let length = packet.len();
    let code = match *packet {
        [_, _, _, _, a, b, c, d, ..] => u32::from_be_bytes([a, b, c, d]),
        _ => return Err(StartupError::Layout { length }),
    };
    // PostgreSQL does not look at the length of the first two, so neither is it looked at here.
    match code {
        SSL_REQUEST_CODE => Ok(FirstPacket::Ssl),
        GSSENC_REQUEST_CODE => Ok(FirstPacket::Gss),
        CANCEL_REQUEST_CODE => parse_cancel(packet).map(FirstPacket::Cancel),
        _ => StartupMessage::parse(packet, code).map(FirstPacket::Startup),
    }
}

fn parse_cancel(packet: &[u8]) -> Result<CancelRequest, StartupError> {
    let length = packet.len();
    let [_, _, _, _, _, _, _, _, a, b, c, d, key @ ..] = packet else {
        return Err(StartupError::CancelLength { length });
    };
    let process_id = u32::from_be_bytes([*a, *b, *c, *d]);
    Ok(CancelRequest {
        process_id,
        key: CancelKey::new(key)?,
    })
}

/// Whether the client asked for a replication connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary session.
    Off,
    /// Replication commands, connected to no database: pg_basebackup, pg_receivewal.
    Physical,
    /// Replication commands and SQL, connected to a database: logical replication.
    Logical,
}

/// A StartupMessage with a user, of a protocol version that can be negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupMessage {
    raw: Bytes,
    version: ProtocolVersion,
    parameters: StartupParameters,
    user: Bytes,
}

impl StartupMessage {
    fn parse(packet: &[u8], code: u32) -> Result<Self, StartupError> {
        let version = ProtocolVersion::from_word(code);
        if !version.is_supported() {
            return Err(StartupError::UnsupportedProtocol(version));
        }
        let raw = Bytes::copy_from_slice(packet);
        let body = raw.slice(STARTUP_PACKET_BYTES_MIN..);
        let layout = |_| StartupError::Layout { length: raw.len() };
        let parameters = StartupParameters::parse(&body).map_err(layout)?;
        let user = parameters.user().ok_or(StartupError::MissingUser)?;
        let user = Bytes::copy_from_slice(user);
        Ok(Self {
            raw,
            version,
            parameters,
            user,
        })
    }

    /// The packet as it was sent, length word included: this is what the backend gets.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The version the client asked for.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// All parameters.
    pub fn parameters(&self) -> &StartupParameters {
        &self.parameters
    }

    /// The value of one parameter; of the last one where it was sent more than once.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.value(name)
    }

    /// The user as the server will read it: never empty, at most 63 bytes, any encoding.
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// The database as the server will read it: the user's name where none was given.
    pub fn database(&self) -> &[u8] {
        self.parameters.database().unwrap_or(&self.user)
    }

    /// The `options` parameter.
    pub fn options(&self) -> Option<&[u8]> {
        self.parameter("options")
    }

    /// The tenant that `options` names: `-c pgs.tenant=acme` or `--pgs.tenant=acme`.
    pub fn tenant_option(&self) -> Option<Vec<u8>> {
        self.parameters.tenant_option()
    }

    /// Whether this is a replication connection. A value that the server will refuse counts as off.
    pub fn replication(&self) -> Replication {
        let value = self
            .parameter("replication")
            .unwrap_or_default()
            .to_ascii_lowercase();
        // As `parse_bool` of PostgreSQL's `src/backend/utils/adt/bool.c`: any prefix of the words.
        let begins = |word: &str| !value.is_empty() && word.as_bytes().starts_with(&value);
        if self.parameter("replication") == Some(b"database") {
            Replication::Logical
        } else if begins("true") || begins("yes") || value == b"on" || value == b"1" {
            Replication::Physical
        } else {
            Replication::Off
        }
    }
}

#[cfg(test)]
#[path = "startup_tests.rs"]
mod tests;
