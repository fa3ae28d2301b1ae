//! What descriptors are called in systemd's store.

use crate::keeper::store::GlobalName;
use crate::keeper::store::Slot;

/// What these names begin with, so that a unit can also have sockets of its own.
pub(super) const GLOBAL_PREFIX: &str = "pgs.global.";

/// By part of a slot: from the client, to the backend, aside. Behind one of these comes the slot's
/// number and nothing else: how many sessions can be kept is a matter of the length of their names.
/// Nobody calls a unit's own socket like that.
const PART_MARKS: [char; 3] = ['<', '>', '+'];

/// Of the numbers: as many digits as [`char::from_digit`] has.
const RADIX: u32 = 36;

/// Earlier versions wrote `pgs.slot.16384.client`.
const FORMER_PREFIX: &str = "pgs.slot.";
const FORMER_PARTS: [&str; 3] = ["client", "backend", "spill"];

/// Of which versions of the router a slot's names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    Short,
    Former,
}

/// What a name in `LISTEN_FDNAMES` stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Global(GlobalName),
    /// With the part's place among those of a slot.
    Slot(Slot, usize, Naming),
}

impl Name {
    /// None where it is not one of ours.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix(GLOBAL_PREFIX) {
            return GlobalName::new(name).map(Self::Global);
        }
        if let Some(former) = text.strip_prefix(FORMER_PREFIX) {
            let (number, part) = former.split_once('.')?;
            let part = FORMER_PARTS.iter().position(|name| *name == part)?;
            let slot = Slot::new(number.parse().ok()?)?;
            return Some(Self::Slot(slot, part, Naming::Former));
        }
        let part = PART_MARKS.iter().position(|mark| text.starts_with(*mark))?;
        let number = text.strip_prefix(PART_MARKS[part])?;
        let slot = Slot::new(u32::from_str_radix(number, RADIX).ok()?)?;
        // Only as it is written here: a number is also read with a sign or zeros before it.
        let ours = slot_name(slot, part) == text;
        ours.then_some(Self::Slot(slot, part, Naming::Short))
    }
}

pub(super) fn global_name(name: &GlobalName) -> String {
    format!("{GLOBAL_PREFIX}{name}")
}

/// The name of one part of a slot.
pub(super) fn slot_name(slot: Slot, part: usize) -> String {
    let mut digits = Vec::new();
    let mut rest = slot.number();
    loop {
        digits.extend(char::from_digit(rest % RADIX, RADIX));
        rest /= RADIX;
        if rest == 0 {
            break;
        }
    }
    std::iter::once(PART_MARKS[part])
        .chain(digits.into_iter().rev())
        .collect()
}

/// The names of all parts of a slot.
pub(super) fn slot_names(slot: Slot, naming: Naming) -> [String; 3] {
    match naming {
        Naming::Short => [0, 1, 2].map(|part| slot_name(slot, part)),
        Naming::Former => {
            FORMER_PARTS.map(|part| format!("{FORMER_PREFIX}{}.{part}", slot.number()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::KEEPER_SLOTS_MAX;

    #[test]
    fn names_survive_the_way() {
        for number in [0, 35, 36, 40, 16_384, KEEPER_SLOTS_MAX - 1] {
            let slot = Slot::new(number).unwrap();
            for naming in [Naming::Short, Naming::Former] {
                for (part, name) in slot_names(slot, naming).iter().enumerate() {
                    assert_eq!(Name::parse(name), Some(Name::Slot(slot, part, naming)));
                }
            }
        }
        let name = GlobalName::new("listener.0").unwrap();
        assert_eq!(Name::parse(&global_name(&name)), Some(Name::Global(name)));
    }

    #[test]
    fn what_is_not_ours_is_nobodys() {
        let foreign = [
            "",
            "http",
            "pgs.socket",
            "pgs.slot.x.client",
            "pgs.slot.1",
            "pgs.slot.1.other",
            "<",
            "<01",
            "<+1",
            "<A",
            "<1ekg",
            "<zzzzzzzz",
            "=1",
        ];
        for name in foreign {
            assert_eq!(Name::parse(name), None, "{name}");
        }
    }

    #[test]
    fn names_are_as_other_versions_know_them() {
        let slot = Slot::new(16_384).unwrap();
        assert_eq!(slot_names(slot, Naming::Short), ["<cn4", ">cn4", "+cn4"]);
        let former = [
            "pgs.slot.16384.client",
            "pgs.slot.16384.backend",
            "pgs.slot.16384.spill",
        ];
        assert_eq!(slot_names(slot, Naming::Former), former);
    }
}
