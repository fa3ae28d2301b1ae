//! Records of sessions that a router goes on with itself after another has taken over, and how that
//! other one asks for their end.

use std::io;
use std::os::unix::fs::FileExt as _;

use super::Entry;
use super::Record;
use super::SessionTable;
use super::Totals;
use super::entry;
use super::offset;
use crate::config::limits::KEEPER_SLOTS_MAX;
use crate::config::limits::TABLE_EMPTY_BLOCKS;
use crate::config::limits::TABLE_READ_RECORDS;
use crate::config::limits::TABLE_RECORD_BYTES;
use crate::keeper::owner::Owner;
use crate::keeper::store::Slot;

/// In the header: how often anybody has been asked for anything.
const ASKED_OFFSET: u64 = 16;
/// In a record: the process that serves the session itself, or zero.
const OWNER_OFFSET: u64 = 12;
/// In a record: the session's id.
const SESSION_OFFSET: u64 = 16;
/// In a record: not zero where its owner is asked to end the session.
const END_OFFSET: u64 = 1_016;

/// Where a session's record is, and what it says.
pub type Owned = (Slot, Box<Record>, Option<Totals>);

impl SessionTable {
    /// All sessions that one process or another serves itself.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn owned(&self) -> io::Result<Vec<Owned>> {
        let mut owned = Vec::new();
        let mut block = vec![0; TABLE_READ_RECORDS * TABLE_RECORD_BYTES];
        for first in (0..KEEPER_SLOTS_MAX).step_by(TABLE_READ_RECORDS) {
            self.read_block(first, &mut block, &mut owned)?;
        }
        Ok(owned)
    }

    /// The same of those from `first` on that were written one behind the other, each at the first
    /// free slot: as far as there are not some blocks in a row without any.
    ///
    /// # Errors
    /// As of [`owned`](Self::owned).
    pub fn owned_from(&self, first: u32) -> io::Result<Vec<Owned>> {
        let mut owned = Vec::new();
        let mut block = vec![0; TABLE_READ_RECORDS * TABLE_RECORD_BYTES];
        let last = KEEPER_SLOTS_MAX - TABLE_READ_RECORDS as u32;
        let mut empty = 0;
        for first in (first..=last).step_by(TABLE_READ_RECORDS) {
            self.read_block(first, &mut block, &mut owned)?;
            empty = match block.iter().all(|byte| *byte == 0) {
                true => empty + 1,
                false => 0,
            };
            if empty == TABLE_EMPTY_BLOCKS {
                break;
            }
        }
        Ok(owned)
    }

    fn read_block(&self, first: u32, block: &mut [u8], owned: &mut Vec<Owned>) -> io::Result<()> {
        self.file.read_exact_at(block, offset(first))?;
        for (number, bytes) in (first..).zip(block.chunks_exact(TABLE_RECORD_BYTES)) {
            if let (Some(slot), Entry::Session(record, totals)) = (Slot::new(number), entry(bytes))
                && record.owner.is_some()
            {
                owned.push((slot, record, totals));
            }
        }
        Ok(())
    }

    /// The session has ended, which this process had or leaves to any. Another's record that stands
    /// there by now stays.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    pub fn clear_of(&self, slot: Slot, owner: Owner, session: u64) -> io::Result<()> {
        let record = offset(slot.number());
        let mut who = [0; 4];
        self.file.read_exact_at(&mut who, record + OWNER_OFFSET)?;
        let who = u32::from_le_bytes(who);
        let own = (who == 0 || who == owner.process_id)
            && self.number_at(record + SESSION_OFFSET)? == session;
        match own {
            true => self.clear(slot),
            false => Ok(()),
        }
    }

    /// Asks the owner of a session to end it. For the one router that is attached.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    pub fn ask_for_end(&self, slot: Slot) -> io::Result<()> {
        let place = offset(slot.number()) + END_OFFSET;
        self.file.write_all_at(&1_u64.to_le_bytes(), place)?;
        let asked = self.asked()?.wrapping_add(1);
        self.file.write_all_at(&asked.to_le_bytes(), ASKED_OFFSET)
    }

    /// A number that is another one when somebody was asked for something.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn asked(&self) -> io::Result<u64> {
        self.number_at(ASKED_OFFSET)
    }

    /// Whether the owner of a session is asked to end it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_asked_for_end(&self, slot: Slot) -> io::Result<bool> {
        Ok(self.number_at(offset(slot.number()) + END_OFFSET)? != 0)
    }

    fn number_at(&self, place: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, place)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
