//! What systemd has, and what it has room for.
//!
//! It answers nothing: what was sent counts. What is beyond `FileDescriptorStoreMax=` it drops
//! without a word, and where all names together are too long for one variable it cannot start the
//! unit any more, until it gives up and closes everything. So neither is sent.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::names::GLOBAL_PREFIX;
use super::names::Name;
use super::names::Naming;
use crate::config::limits::KEEPER_GLOBALS_MAX;
use crate::config::limits::KEEPER_NAME_BYTES_MAX;
use crate::config::limits::KEEPER_SYSTEMD_DESCRIPTORS_PER_GLOBAL;
use crate::config::limits::KEEPER_SYSTEMD_FOREIGN_NAMES_BYTES;
use crate::config::limits::KEEPER_SYSTEMD_VARIABLE_BYTES_MAX;
use crate::keeper::store::GlobalName;
use crate::keeper::store::Slot;
use crate::keeper::store::StoreError;

/// Of the variable: what stands before the names. Each name has one byte behind it, which is a
/// colon, or a zero after the last one.
const VARIABLE: &str = "LISTEN_FDNAMES=";

/// All that there can be of named descriptors.
const GLOBALS_NAMES_BYTES: usize =
    KEEPER_GLOBALS_MAX * (GLOBAL_PREFIX.len() + KEEPER_NAME_BYTES_MAX + 1);

/// What some descriptors take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    descriptors: usize,
    name_bytes: usize,
}

impl Share {
    pub(super) fn of<'name>(names: impl IntoIterator<Item = &'name str>) -> Self {
        let mut share = Self::default();
        for name in names {
            share.add(name);
        }
        share
    }

    fn add(&mut self, name: &str) {
        self.descriptors += 1;
        self.name_bytes += name.len() + 1;
    }
}

/// A slot of which systemd may have a descriptor.
#[derive(Debug, Clone, Copy)]
struct Stored {
    share: Share,
    naming: Naming,
}

/// What there is no more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Descriptors,
    Names,
}

/// What systemd has.
#[derive(Debug)]
pub(super) struct Contents {
    descriptors_max: usize,
    /// What was passed beside ours. It may be the unit's own sockets, or in the store.
    foreign: Share,
    globals: BTreeSet<GlobalName>,
    slots: BTreeMap<Slot, Stored>,
    /// Of all slots together.
    of_slots: Share,
    /// Slots of which it has something that it should not have, or not all.
    wrong: BTreeSet<Slot>,
    /// Slots that were refused, and that nobody has let go of since: they end with this process.
    refused: BTreeSet<Slot>,
    /// Why something was refused, until nothing is left of what was.
    full: Option<Full>,
    /// Whether the log says that it was full.
    told: bool,
}

impl Contents {
    /// With room for so many descriptors, and with what was passed by these names.
    pub(super) fn new<'name>(
        descriptors_max: usize,
        passed: impl IntoIterator<Item = &'name str>,
    ) -> Self {
        let mut contents = Self {
            descriptors_max,
            foreign: Share::default(),
            globals: BTreeSet::new(),
            slots: BTreeMap::new(),
            of_slots: Share::default(),
            wrong: BTreeSet::new(),
            refused: BTreeSet::new(),
            full: None,
            told: false,
        };
        for text in passed {
            contents.was_passed(text);
        }
        contents
    }

    fn was_passed(&mut self, text: &str) {
        match Name::parse(text) {
            Some(Name::Global(name)) => drop(self.globals.insert(name)),
            Some(Name::Slot(slot, _, naming)) => {
                let new = Stored {
                    share: Share::default(),
                    naming,
                };
                let stored = self.slots.entry(slot).or_insert(new);
                stored.share.add(text);
                self.of_slots.add(text);
                if naming == Naming::Former {
                    stored.naming = naming;
                }
            }
            None => self.foreign.add(text),
        }
    }

    /// Counts a named descriptor, which may be there already.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn put_global(&mut self, name: &GlobalName) -> Result<(), StoreError> {
        let others = self.foreign.descriptors + self.of_slots.descriptors;
        let new = usize::from(!self.globals.contains(name));
        // Also of one that is there: to be put anew it is removed first.
        if others + self.globals.len() + new > self.descriptors_max {
            return Err(self.refuse(Full::Descriptors));
        }
        self.globals.insert(name.clone());
        Ok(())
    }

    /// It is gone.
    pub(super) fn removed_global(&mut self, name: &GlobalName) {
        self.globals.remove(name);
    }

    /// Counts a slot of which nothing is there.
    ///
    /// # Errors
    /// There is no room for all of it.
    pub(super) fn put_slot(&mut self, slot: Slot, share: Share) -> Result<(), StoreError> {
        if let Some(full) = self.lacks(share) {
            self.refused.insert(slot);
            return Err(self.refuse(full));
        }
        self.refused.remove(&slot);
        let naming = Naming::Short;
        self.slots.insert(slot, Stored { share, naming });
        self.of_slots.descriptors += share.descriptors;
        self.of_slots.name_bytes += share.name_bytes;
        Ok(())
    }

    /// By which names a slot is to be removed, if there may be anything of it. From here on that is
    /// the caller's: another thread may be at what is wrong.
    pub(super) fn begin_removal(&mut self, slot: Slot) -> Option<Naming> {
        self.wrong.remove(&slot);
        self.refused.remove(&slot);
        self.slots.get(&slot).map(|stored| stored.naming)
    }

    /// All of it is gone.
    pub(super) fn removed_slot(&mut self, slot: Slot) {
        self.wrong.remove(&slot);
        if let Some(Stored { share, .. }) = self.slots.remove(&slot) {
            self.of_slots.descriptors -= share.descriptors;
            self.of_slots.name_bytes -= share.name_bytes;
        }
    }

    /// There is something of it that should not be there, or not all.
    pub(super) fn is_wrong(&mut self, slot: Slot) {
        self.wrong.insert(slot);
    }

    /// One that is wrong, and by which names it is to be removed.
    pub(super) fn first_wrong(&self) -> Option<(Slot, Naming)> {
        let slot = self.wrong.first()?;
        Some((*slot, self.slots.get(slot)?.naming))
    }

    pub(super) fn has_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    pub(super) fn holds(&self, slot: Slot) -> bool {
        self.slots.contains_key(&slot) && !self.wrong.contains(&slot)
    }

    /// For people, where something was refused that is still there.
    pub(super) fn why_full(&self) -> Option<String> {
        Some(self.why(self.full?))
    }

    /// What there is not enough of for a slot.
    fn lacks(&self, share: Share) -> Option<Full> {
        let reserved = self.descriptors_max / KEEPER_SYSTEMD_DESCRIPTORS_PER_GLOBAL;
        let globals = self.globals.len().max(reserved.min(KEEPER_GLOBALS_MAX));
        let others = self.foreign.descriptors + globals;
        if others + self.of_slots.descriptors + share.descriptors > self.descriptors_max {
            return Some(Full::Descriptors);
        }
        let foreign = self.foreign.name_bytes;
        let foreign = foreign.max(KEEPER_SYSTEMD_FOREIGN_NAMES_BYTES);
        let others = VARIABLE.len() + GLOBALS_NAMES_BYTES + foreign;
        let bytes = others + self.of_slots.name_bytes + share.name_bytes;
        (bytes > KEEPER_SYSTEMD_VARIABLE_BYTES_MAX).then_some(Full::Names)
    }

    /// What was refused is history where nothing is left of it.
    pub(super) fn look_at_refused(&mut self) {
        if self.refused.is_empty() {
            self.full = None;
        }
    }

    fn refuse(&mut self, full: Full) -> StoreError {
        self.full = Some(full);
        if !self.told {
            self.told = true;
            tracing::warn!("systemd's store is full: {}", self.why(full));
        }
        StoreError::Full(match full {
            Full::Descriptors => "it has as many descriptors as `FileDescriptorStoreMax=` says",
            Full::Names => "the names of what it has fill the variable that they are passed in",
        })
    }

    fn why(&self, full: Full) -> String {
        match full {
            Full::Descriptors => format!(
                "it takes {} descriptors: some sessions end with this process; raise \
                 `FileDescriptorStoreMax=`",
                self.descriptors_max
            ),
            Full::Names => format!(
                "it can pass the names of {} sessions: those beyond end with this process",
                self.slots.len()
            ),
        }
    }
}
