//! What a keeper process holds.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use super::message::Message;
use super::message::PartMask;
use super::store::GlobalName;
use super::store::Slot;
use super::store::SlotDescriptors;
use crate::config::limits::KEEPER_GLOBALS_MAX;
use crate::config::limits::KEEPER_PUTS_PER_MESSAGE_MAX;

/// Listeners are let go of when no router comes back: whoever connects is then refused instead of
/// waiting for nobody.
const LISTENER_PREFIX: &str = "listener.";

/// Named descriptors, and those of slots.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    globals: BTreeMap<GlobalName, OwnedFd>,
    slots: BTreeMap<Slot, SlotDescriptors<OwnedFd>>,
    /// Descriptors of all slots.
    in_slots: usize,
}

impl Holdings {
    /// Keeps one; gives it up again where there are too many.
    pub(super) fn put_global(&mut self, name: GlobalName, descriptor: OwnedFd) -> bool {
        let room = self.globals.len() < KEEPER_GLOBALS_MAX || self.globals.contains_key(&name);
        if room {
            self.globals.insert(name, descriptor);
        }
        room
    }

    pub(super) fn drop_global(&mut self, name: &GlobalName) {
        self.globals.remove(name);
    }

    /// Keeps them, as long as there are no more than so many descriptors with all that may have
    /// names; those for which there is no room.
    pub(super) fn put_slots(
        &mut self,
        slots: Vec<(Slot, PartMask)>,
        descriptors: Vec<OwnedFd>,
        descriptors_max: usize,
    ) -> Vec<Slot> {
        let mut untaken = Vec::new();
        for (slot, descriptors) in distribute(slots, descriptors) {
            // What was to be replaced must not come back.
            self.drop_slot(slot);
            let more = count(&descriptors);
            if KEEPER_GLOBALS_MAX + self.in_slots + more > descriptors_max {
                untaken.push(slot);
                continue;
            }
            self.in_slots += more;
            self.slots.insert(slot, descriptors);
        }
        untaken
    }

    pub(super) fn drop_slot(&mut self, slot: Slot) {
        if let Some(dropped) = self.slots.remove(&slot) {
            self.in_slots -= count(&dropped);
        }
    }

    pub(super) fn slot(&self, slot: Slot) -> Option<&SlotDescriptors<OwnedFd>> {
        self.slots.get(&slot)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (Slot, &SlotDescriptors<OwnedFd>)> {
        self.slots.iter().map(|(slot, held)| (*slot, held))
    }

    pub(super) fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn global_count(&self) -> u32 {
        self.globals.len() as u32
    }

    pub(super) fn drop_listeners(&mut self) {
        self.globals
            .retain(|name, _| !name.as_str().starts_with(LISTENER_PREFIX));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Everything, in as few messages as it takes.
    pub(super) fn messages(&self) -> impl Iterator<Item = (Message, Vec<BorrowedFd<'_>>)> {
        let globals = self
            .globals
            .iter()
            .map(|(name, held)| (Message::Global(name.clone()), vec![held.as_fd()]));
        let slots: Vec<_> = self.slots().collect();
        let batches: Vec<_> = slots
            .chunks(KEEPER_PUTS_PER_MESSAGE_MAX)
            .map(|batch| gather(batch.iter().map(|(slot, held)| (*slot, held.borrowed()))))
            .collect();
        globals.chain(batches)
    }
}

fn count(descriptors: &SlotDescriptors<OwnedFd>) -> usize {
    descriptors.parts().into_iter().flatten().count()
}

/// One message for some slots.
pub(super) fn gather<'fd>(
    slots: impl Iterator<Item = (Slot, SlotDescriptors<BorrowedFd<'fd>>)>,
) -> (Message, Vec<BorrowedFd<'fd>>) {
    let (mut entries, mut all) = (Vec::new(), Vec::new());
    for (slot, descriptors) in slots {
        let parts = descriptors.parts();
        if let Some(mask) = PartMask::new(parts.map(|part| part.is_some())) {
            entries.push((slot, mask));
            all.extend(parts.into_iter().flatten());
        }
    }
    (Message::Slots(entries), all)
}

/// The reverse.
pub(super) fn distribute(
    slots: Vec<(Slot, PartMask)>,
    descriptors: Vec<OwnedFd>,
) -> impl Iterator<Item = (Slot, SlotDescriptors<OwnedFd>)> {
    let mut descriptors = descriptors.into_iter();
    slots.into_iter().map(move |(slot, mask)| {
        let parts = mask
            .parts()
            .map(|there| there.then(|| descriptors.next()).flatten());
        (slot, SlotDescriptors::from_parts(parts))
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::fstat;

    use super::*;

    fn file() -> OwnedFd {
        std::os::unix::net::UnixDatagram::unbound().unwrap().into()
    }

    fn inode(file: &OwnedFd) -> u64 {
        fstat(file).unwrap().st_ino
    }

    #[test]
    fn each_descriptor_comes_back_in_its_part() {
        let slot = |number| Slot::new(number).unwrap();
        let sets = [
            [Some(file()), Some(file()), Some(file())],
            [Some(file()), None, Some(file())],
            [None, Some(file()), None],
        ];
        let expected = sets
            .each_ref()
            .map(|set| set.each_ref().map(|one| one.as_ref().map(inode)));
        let mut holdings = Holdings::default();
        let sets = sets.map(SlotDescriptors::from_parts);
        let numbered = (0..)
            .map(slot)
            .zip(sets.iter().map(SlotDescriptors::borrowed));
        let (Message::Slots(entries), all) = gather(numbered) else {
            panic!("no slots");
        };
        let owned = all
            .iter()
            .map(|one| one.try_clone_to_owned().unwrap())
            .collect();
        assert!(holdings.put_slots(entries, owned, usize::MAX).is_empty());
        for (number, expected) in (0..).zip(expected) {
            let parts = holdings.slot(slot(number)).unwrap().parts();
            assert_eq!(parts.map(|part| part.map(inode)), expected);
        }
    }

    #[test]
    fn there_is_room_for_so_many_descriptors() {
        const MAX: usize = KEEPER_GLOBALS_MAX + 5;
        let slot = |number| Slot::new(number).unwrap();
        let put = |holdings: &mut Holdings, number, parts: [bool; 3]| {
            let mask = PartMask::new(parts).unwrap();
            let descriptors = parts.iter().filter(|part| **part).map(|_| file());
            let slots = vec![(slot(number), mask)];
            let untaken = holdings.put_slots(slots, descriptors.collect(), MAX);
            untaken.is_empty()
        };
        let (all, one) = ([true; 3], [true, false, false]);
        let mut holdings = Holdings::default();
        assert!(put(&mut holdings, 0, all));
        assert!(!put(&mut holdings, 1, all) && holdings.slot(slot(1)).is_none());
        assert!(put(&mut holdings, 0, all), "in place of what was there");
        assert!(put(&mut holdings, 2, one) && put(&mut holdings, 3, one));
        assert!(!put(&mut holdings, 4, one));
        holdings.drop_slot(slot(0));
        assert!(put(&mut holdings, 1, all) && !put(&mut holdings, 4, one));
        // What was to be replaced is not what is there.
        assert!(!put(&mut holdings, 2, all) && holdings.slot(slot(2)).is_none());
        assert_eq!(holdings.slot_count(), 2);
    }

    #[test]
    fn names_are_bounded_and_replaced() {
        let mut holdings = Holdings::default();
        let name = |number| GlobalName::new(format!("listener.{number}")).unwrap();
        for number in 0..KEEPER_GLOBALS_MAX {
            assert!(holdings.put_global(name(number), file()));
        }
        assert!(!holdings.put_global(name(KEEPER_GLOBALS_MAX), file()));
        assert!(
            holdings.put_global(name(0), file()),
            "in place of what was there"
        );
        holdings.drop_listeners();
        assert_eq!(holdings.global_count(), 0);
    }
}
