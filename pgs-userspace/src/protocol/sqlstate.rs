//! SQLSTATE: the five characters that say what kind of error it is.

use std::fmt;

/// An SQLSTATE: five digits or upper-case letters. The names are those of PostgreSQL's
/// `src/backend/utils/errcodes.txt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlState([u8; Self::BYTES]);

impl SqlState {
    /// How many characters there are.
    pub const BYTES: usize = 5;

    /// `connection_failure`.
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// `protocol_violation`.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// `feature_not_supported`.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// `invalid_authorization_specification`.
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");
    /// `invalid_password`.
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// `too_many_connections`.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// `program_limit_exceeded`.
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    /// `query_canceled`.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// `admin_shutdown`.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// `cannot_connect_now`.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// `system_error`.
    pub const SYSTEM_ERROR: Self = Self(*b"58000");

    /// From what a server sent; `None` if it is not an SQLSTATE.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let code: [u8; Self::BYTES] = bytes.try_into().ok()?;
        let valid = code
            .iter()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        valid.then_some(Self(code))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        // Every way to make one lets ASCII in alone, so the fall-back is never taken.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_digits_or_capitals_and_nothing_else() {
        assert_eq!(
            SqlState::from_bytes(b"57P01"),
            Some(SqlState::ADMIN_SHUTDOWN)
        );
        assert_eq!(SqlState::ADMIN_SHUTDOWN.to_string(), "57P01");
        for wrong in [
            &b"57P0"[..],
            b"57P011",
            b"57p01",
            b"",
            b"57\xc3\xa9",
            b"57P0\0",
        ] {
            assert_eq!(SqlState::from_bytes(wrong), None, "{wrong:?}");
        }
    }
}
