//! Bytes that show when some are missing, doubled or out of order.

use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use sha2::Digest as _;
use sha2::Sha256;

const BLOCK_BYTES: usize = 64 * 1024;

/// How far the numbered marks are apart.
const MARK_EVERY_BYTES: usize = 4096;

/// `length` bytes: noise, with a running number every 4 KiB.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    SmallRng::seed_from_u64(seed).fill(&mut block[..]);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        bytes.extend_from_slice(&block[..BLOCK_BYTES.min(length - bytes.len())]);
    }
    for (number, chunk) in bytes.chunks_exact_mut(MARK_EVERY_BYTES).enumerate() {
        chunk[..8].copy_from_slice(&(number as u64).to_be_bytes());
    }
    bytes
}

/// As PostgreSQL's `lpad(text, length, fill)` gives it.
pub fn lpad(text: impl std::fmt::Display, length: usize, fill: &str) -> String {
    let text = text.to_string();
    fill.repeat(length.saturating_sub(text.len())) + &text
}

/// In hexadecimal, as PostgreSQL's `encode(sha256(…), 'hex')` gives it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
