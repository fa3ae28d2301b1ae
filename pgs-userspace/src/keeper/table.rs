//! What is known of each session, in memory that is kept with its descriptors.
//!
//! A memory file of fixed size: one record for each slot, at `(slot + 1) * 1024`, behind a header.
//! A record is written by one `pwrite` when a session begins, and cleared by one when it ends.
//! Only pages that were written take memory.
//!
//! Numbers are little-endian. The header has the mark, the version, the size of a record, and at 16
//! how often an owner was asked for something.
//!
//! | offset | bytes | in a record |
//! |---|---|---|
//! | 0 | 8 | the first bytes of the SHA-256 of 8..992; zero for no record |
//! | 8 | 4 | version of the record, [`VERSION`] |
//! | 12 | 4 | process that serves the session itself, or zero where any router can |
//! | 16 | 8 | session id |
//! | 24 | 8 | begin, in microseconds since 1970 |
//! | 32 | 4 | process id of the backend, as announced |
//! | 36 | 1 | path |
//! | 37 | 1 | address family of the client: 4, 6, or 0 |
//! | 38 | 2 | the client's port |
//! | 40 | 16 | the client's address |
//! | 56 | 2 | length of the cancel key |
//! | 58 | 256 | cancel key |
//! | 314 | 1 + 63 | tenant: length, text |
//! | 378 | 1 + 63 | user, cut |
//! | 442 | 1 + 63 | database, cut |
//! | 506 | 8 | when the process at 12 was started, in clock ticks since boot; zero if not known |
//! | 514 | 478 | zero |
//! | 992 | 8 + 8 | bytes to the backend and to the client that were relayed |
//! | 1008 | 8 | both added up, inverted: a check of the two |
//! | 1016 | 8 | not zero: the owner is asked to end the session |

mod owned;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use nix::fcntl::FcntlArg;
use nix::fcntl::SealFlag;
use nix::fcntl::fcntl;
use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;
use sha2::Digest as _;
use sha2::Sha256;

pub use owned::Owned;

use super::owner::Owner;
use super::store::Slot;
use crate::config::limits::CANCEL_KEY_BYTES_MAX;
use crate::config::limits::KEEPER_SLOTS_MAX;
use crate::config::limits::TABLE_NAME_BYTES_MAX;
use crate::config::limits::TABLE_RECORD_BYTES;
use crate::config::limits::TENANT_ID_BYTES_MAX;

/// Of the header and of records. A router that finds another one cannot go on with the sessions.
pub const VERSION: u32 = 1;
const MARK: [u8; 8] = *b"PGSTABLE";
const CHECK: std::ops::Range<usize> = 0..8;
const CHECKED: std::ops::Range<usize> = 8..992;
const TOTALS_OFFSET: usize = 992;
const TOTALS_BYTES: usize = 24;
const KEY_OFFSET: usize = 58;
const TENANT_OFFSET: usize = 314;
const USER_OFFSET: usize = 378;
const DATABASE_OFFSET: usize = 442;
const STARTED_OFFSET: usize = 506;

const _: () = assert!(KEY_OFFSET + CANCEL_KEY_BYTES_MAX == TENANT_OFFSET);
const _: () = assert!(TENANT_OFFSET + 1 + TENANT_ID_BYTES_MAX == USER_OFFSET);
const _: () = assert!(USER_OFFSET + 1 + TABLE_NAME_BYTES_MAX == DATABASE_OFFSET);
const _: () = assert!(DATABASE_OFFSET + 1 + TABLE_NAME_BYTES_MAX == STARTED_OFFSET);
const _: () = assert!(STARTED_OFFSET + 8 <= CHECKED.end);
const _: () = assert!(TOTALS_OFFSET + TOTALS_BYTES <= TABLE_RECORD_BYTES);

/// What is known of one session.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The process that serves it itself: whoever takes over leaves it alone. None where the
    /// session goes on without one.
    pub owner: Option<Owner>,
    /// As in `pgs sessions`.
    pub session: u64,
    /// When the connection was accepted, in microseconds since 1970.
    pub begun_microseconds: u64,
    /// As announced in BackendKeyData; zero for none.
    pub backend_process_id: u32,
    /// Whatever number the data path gives the path.
    pub path: u8,
    /// Where the client is, if that is known.
    pub client: Option<SocketAddr>,
    /// By which the session's queries can be cancelled; empty for none.
    pub cancel_key: Vec<u8>,
    /// Tenant id.
    pub tenant: String,
    /// User of the startup message, cut to [`TABLE_NAME_BYTES_MAX`].
    pub user: String,
    /// Database of the startup message, cut to [`TABLE_NAME_BYTES_MAX`].
    pub database: String,
}

impl std::fmt::Debug for Record {
    /// Without the key, which is a secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Record")
            .field("owner", &self.owner)
            .field("session", &self.session)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

/// Bytes that were relayed, in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// From the client to the backend.
    pub to_backend: u64,
    /// From the backend to the client.
    pub to_client: u64,
}

/// What stands at a slot.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// No session.
    Empty,
    /// One that was being written when its router died, or that another version wrote.
    Invalid,
    /// A session, and its totals where they are whole.
    Session(Box<Record>, Option<Totals>),
}

/// The records of all slots.
#[derive(Debug)]
pub struct SessionTable {
    file: File,
}

impl SessionTable {
    /// A new one, without sessions.
    ///
    /// # Errors
    /// The kernel gives no memory file.
    pub fn create() -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"pgs-sessions", flags)?);
        file.set_len(offset(KEEPER_SLOTS_MAX))?;
        let mut header = Vec::from(MARK);
        header.extend(VERSION.to_le_bytes());
        header.extend((TABLE_RECORD_BYTES as u32).to_le_bytes());
        file.write_all_at(&header, 0)?;
        // Nobody who holds it can make another's writes fail by cutting it short.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self { file })
    }

    /// One that was kept; none where it is not of this version.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(kept: OwnedFd) -> io::Result<Option<Self>> {
        let file = File::from(kept);
        let mut header = [0; 16];
        if file.metadata()?.len() != offset(KEEPER_SLOTS_MAX) {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let [mark, version, record] = [&header[..8], &header[8..12], &header[12..]];
        let known = mark == MARK
            && version == VERSION.to_le_bytes()
            && record == (TABLE_RECORD_BYTES as u32).to_le_bytes();
        Ok(known.then_some(Self { file }))
    }

    /// To be put where the slots are.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A session begins, or has changed.
    ///
    /// # Errors
    /// The record is not written: there is no memory left.
    pub fn write(&self, slot: Slot, record: &Record, totals: Totals) -> io::Result<()> {
        let mut bytes = record.encode();
        bytes[TOTALS_OFFSET..TOTALS_OFFSET + TOTALS_BYTES].copy_from_slice(&totals.encode());
        self.file.write_all_at(&bytes, offset(slot.number()))
    }

    /// The same session, further on.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    pub fn write_totals(&self, slot: Slot, totals: Totals) -> io::Result<()> {
        let offset = offset(slot.number()) + TOTALS_OFFSET as u64;
        self.file.write_all_at(&totals.encode(), offset)
    }

    /// The session has ended. The key goes with it.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    pub fn clear(&self, slot: Slot) -> io::Result<()> {
        let nothing = [0; TABLE_RECORD_BYTES];
        self.file.write_all_at(&nothing, offset(slot.number()))
    }

    /// What stands at a slot.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, slot: Slot) -> io::Result<Entry> {
        let mut bytes = [0; TABLE_RECORD_BYTES];
        self.file.read_exact_at(&mut bytes, offset(slot.number()))?;
        Ok(entry(&bytes))
    }
}

/// What the bytes of one record say.
fn entry(bytes: &[u8]) -> Entry {
    let Some(bytes) = bytes.first_chunk::<TABLE_RECORD_BYTES>() else {
        return Entry::Invalid;
    };
    if bytes[CHECK] == [0; 8] {
        return Entry::Empty;
    }
    let record = Record::decode(bytes);
    let totals = Totals::decode(&bytes[TOTALS_OFFSET..]);
    record.map_or(Entry::Invalid, |one| Entry::Session(Box::new(one), totals))
}

/// Of a slot's record: the header has the place of one.
fn offset(slot: u32) -> u64 {
    (u64::from(slot) + 1) * TABLE_RECORD_BYTES as u64
}

fn check(bytes: &[u8; TABLE_RECORD_BYTES]) -> [u8; 8] {
    let digest = Sha256::digest(&bytes[CHECKED]);
    let mut check = [0; 8];
    check.copy_from_slice(&digest[CHECK]);
    // Zero stands for no record.
    check[0] |= 1;
    check
}

impl Totals {
    fn encode(self) -> [u8; TOTALS_BYTES] {
        let mut bytes = [0; TOTALS_BYTES];
        let check = !self.to_backend.wrapping_add(self.to_client);
        let numbers = [self.to_backend, self.to_client, check];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes.chunks_exact(8).map(number);
        let totals = Self {
            to_backend: numbers.next()?,
            to_client: numbers.next()?,
        };
        let sum = totals.to_backend.wrapping_add(totals.to_client);
        (numbers.next()? == !sum).then_some(totals)
    }
}

impl Record {
    fn encode(&self) -> [u8; TABLE_RECORD_BYTES] {
        let mut bytes = [0; TABLE_RECORD_BYTES];
        let mut put = |offset: usize, part: &[u8]| {
            bytes[offset..offset + part.len()].copy_from_slice(part);
        };
        put(8, &VERSION.to_le_bytes());
        if let Some(owner) = self.owner {
            put(12, &owner.process_id.to_le_bytes());
            put(STARTED_OFFSET, &owner.started_ticks.to_le_bytes());
        }
        put(16, &self.session.to_le_bytes());
        put(24, &self.begun_microseconds.to_le_bytes());
        put(32, &self.backend_process_id.to_le_bytes());
        put(36, &[self.path]);
        if let Some(client) = self.client {
            let (family, address) = match client.ip() {
                IpAddr::V4(address) => (4, address.to_ipv6_mapped().octets()),
                IpAddr::V6(address) => (6, address.octets()),
            };
            put(37, &[family]);
            put(38, &client.port().to_le_bytes());
            put(40, &address);
        }
        let key = &self.cancel_key[..self.cancel_key.len().min(CANCEL_KEY_BYTES_MAX)];
        put(56, &(key.len() as u16).to_le_bytes());
        put(KEY_OFFSET, key);
        let texts = [
            (TENANT_OFFSET, &self.tenant),
            (USER_OFFSET, &self.user),
            (DATABASE_OFFSET, &self.database),
        ];
        for (offset, text) in texts {
            let text = cut(text);
            put(offset, &[text.len() as u8]);
            put(offset + 1, text.as_bytes());
        }
        let check = check(&bytes);
        bytes[CHECK].copy_from_slice(&check);
        bytes
    }

    fn decode(bytes: &[u8; TABLE_RECORD_BYTES]) -> Option<Self> {
        if bytes[CHECK] != check(bytes) || number(&bytes[8..12]) != u64::from(VERSION) {
            return None;
        }
        let half = |offset: usize| number(&bytes[offset..offset + 4]) as u32;
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[40..56]);
        let address = Ipv6Addr::from(address);
        let port = u16::from_le_bytes([bytes[38], bytes[39]]);
        let client = match bytes[37] {
            4 => Some(IpAddr::V4(address.to_ipv4_mapped()?)),
            6 => Some(IpAddr::V6(address)),
            _ => None,
        };
        let key_bytes = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
        let key = bytes[KEY_OFFSET..TENANT_OFFSET].get(..key_bytes)?;
        Some(Self {
            owner: Some(Owner {
                process_id: half(12),
                started_ticks: number(&bytes[STARTED_OFFSET..STARTED_OFFSET + 8]),
            })
            .filter(|owner| owner.process_id != 0),
            session: number(&bytes[16..24]),
            begun_microseconds: number(&bytes[24..32]),
            backend_process_id: half(32),
            path: bytes[36],
            client: client.map(|address| SocketAddr::new(address, port)),
            cancel_key: key.to_vec(),
            tenant: text(&bytes[TENANT_OFFSET..USER_OFFSET])?,
            user: text(&bytes[USER_OFFSET..DATABASE_OFFSET])?,
            database: text(&bytes[DATABASE_OFFSET..DATABASE_OFFSET + 1 + TABLE_NAME_BYTES_MAX])?,
        })
    }
}

/// At most as long as fits, between two characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TABLE_NAME_BYTES_MAX)]
}

fn text(field: &[u8]) -> Option<String> {
    let (length, text) = field.split_first()?;
    let text = text.get(..usize::from(*length))?;
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().rev();
    digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
