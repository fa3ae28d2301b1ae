//! The protocol version word of a startup packet.

use std::fmt;

/// A protocol version, as the client asked for it: the high and the low half of the version word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion {
    /// 3 for everything that PostgreSQL 14 and later speak.
    pub major: u16,
    /// 0 and 2 exist; 9999 is what libpq sends to keep servers honest about negotiation.
    pub minor: u16,
}

impl ProtocolVersion {
    /// The oldest that PostgreSQL 18 speaks: `PG_PROTOCOL_EARLIEST` of its
    /// `src/include/libpq/pqcomm.h`.
    pub const EARLIEST: Self = Self { major: 3, minor: 0 };

    /// The newest that PostgreSQL 18 speaks: `PG_PROTOCOL_LATEST` of its
    /// `src/include/libpq/pqcomm.h`.
    pub const LATEST: Self = Self { major: 3, minor: 2 };

    /// What stands in a version's place in an SSLRequest: `NEGOTIATE_SSL_CODE` of PostgreSQL's
    /// `src/include/libpq/pqcomm.h`.
    pub const SSL_REQUEST: Self = Self {
        major: 1234,
        minor: 5679,
    };

    /// What stands in a version's place in a GSSENCRequest: `NEGOTIATE_GSS_CODE`, likewise.
    pub const GSS_REQUEST: Self = Self {
        major: 1234,
        minor: 5680,
    };

    /// From the version word, in host byte order.
    pub fn from_word(word: u32) -> Self {
        let [a, b, c, d] = word.to_be_bytes();
        let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Self { major, minor }
    }

    /// The version word, in host byte order.
    pub fn word(self) -> u32 {
        u32::from(self.major) << 16 | u32::from(self.minor)
    }

    /// Whether a server can begin to talk at this version. A newer minor one is negotiated down.
    pub fn is_supported(self) -> bool {
        (Self::EARLIEST.major..=Self::LATEST.major).contains(&self.major)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_and_its_halves() {
        let version = ProtocolVersion::from_word(0x0003_270f);
        assert_eq!(
            version,
            ProtocolVersion {
                major: 3,
                minor: 9999
            }
        );
        assert_eq!(version.word(), 0x0003_270f);
        assert_eq!(version.to_string(), "3.9999");
        assert!(version.is_supported());
        assert!(!ProtocolVersion { major: 2, minor: 0 }.is_supported());
        assert!(!ProtocolVersion { major: 4, minor: 0 }.is_supported());
    }
}
