//! Cancel keys, and the CancelRequest that carries one.

use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;

use crate::config::limits::CANCEL_KEY_BYTES_MAX;
use crate::config::limits::CANCEL_KEY_BYTES_MIN;

/// `CANCEL_REQUEST_CODE`, `PG_PROTOCOL(1234, 5678)` of PostgreSQL's `src/include/libpq/pqcomm.h`.
pub const CANCEL_REQUEST_CODE: u32 = 1234 << 16 | 5678;

/// What a CancelRequest has before its key: length word, request code, process id.
pub const CANCEL_REQUEST_HEADER_BYTES: usize = 12;

/// A secret that lets its holder cancel the running query of one backend.
///
/// It cannot be printed, and comparing two takes a time that depends on their lengths alone.
#[derive(Clone)]
pub struct CancelKey(Box<[u8]>);

/// A key is 4 to 256 bytes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cancel key of {length} bytes: it has {CANCEL_KEY_BYTES_MIN} to {CANCEL_KEY_BYTES_MAX} bytes"
)]
pub struct CancelKeyLengthError {
    /// How long the key was that somebody sent.
    pub length: usize,
}

impl CancelKey {
    /// Takes a copy.
    pub fn new(bytes: &[u8]) -> Result<Self, CancelKeyLengthError> {
        let length = bytes.len();
        if (CANCEL_KEY_BYTES_MIN..=CANCEL_KEY_BYTES_MAX).contains(&length) {
            Ok(Self(bytes.into()))
        } else {
            Err(CancelKeyLengthError { length })
        }
    }

    /// The secret.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CancelKey({} bytes)", self.0.len())
    }
}

impl PartialEq for CancelKey {
    fn eq(&self, other: &Self) -> bool {
        let differing = |(left, right): (&u8, &u8)| left ^ right;
        let bytes = self.0.iter().zip(&other.0).map(differing);
        self.0.len() == other.0.len() && bytes.fold(0, |any, byte| any | byte) == 0
    }
}

impl Eq for CancelKey {}

impl Hash for CancelKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// "Cancel what this backend is doing": sent on a connection of its own, never answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CancelRequest {
    /// Of the backend, as it announced itself in BackendKeyData.
    pub process_id: u32,
    /// Of the backend, as it announced itself in BackendKeyData.
    pub key: CancelKey,
}

impl CancelRequest {
    /// The whole packet, length word included.
    pub fn encode(&self) -> Bytes {
        let Self { process_id, key } = self;
        let length = CANCEL_REQUEST_HEADER_BYTES + key.as_bytes().len();
        let mut packet = BytesMut::with_capacity(length);
        // A key has at most 256 bytes, so the length fits.
        packet.put_u32(length as u32);
        packet.put_u32(CANCEL_REQUEST_CODE);
        packet.put_u32(*process_id);
        packet.put_slice(key.as_bytes());
        packet.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_libpq_sends_it() {
        let key = CancelKey::new(&[0xde, 0xad, 0xbe, 0xef]).unwrap();
        let request = CancelRequest {
            process_id: 4711,
            key,
        };
        let expected = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x12\x67\xde\xad\xbe\xef";
        assert_eq!(request.encode(), &expected[..]);
    }

    #[test]
    fn a_key_has_4_to_256_bytes() {
        for length in [0, 1, 3, 257, 1000] {
            let error = CancelKey::new(&vec![7; length]).unwrap_err();
            assert_eq!(error, CancelKeyLengthError { length });
        }
        for length in [4, 32, 256] {
            assert_eq!(
                CancelKey::new(&vec![7; length]).unwrap().as_bytes().len(),
                length
            );
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = CancelKey::new(b"hush").unwrap();
        let request = CancelRequest { process_id: 1, key };
        let printed = format!("{request:?} {request:#?}");
        assert!(
            !printed.contains("hush") && !printed.contains("104"),
            "{printed}"
        );
        assert!(printed.contains("CancelKey(4 bytes)"), "{printed}");
    }

    #[test]
    fn keys_are_equal_when_all_bytes_are() {
        let key = |bytes: &[u8]| CancelKey::new(bytes).unwrap();
        assert_eq!(key(b"abcd"), key(b"abcd"));
        assert_ne!(key(b"abcd"), key(b"abce"));
        assert_ne!(key(b"abcd"), key(b"bbcd"));
        assert_ne!(key(b"abcd"), key(b"abcde"));
    }
}
