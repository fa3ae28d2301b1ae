//! What router and keeper say to each other: values to bytes and back, no I/O.
//!
//! One message is one packet. It begins with sixteen bytes, little-endian: the mark `PGSK`, the
//! version (16 bit), the kind (16 bit), a count and a value (32 bit each). What follows depends on
//! the kind. Descriptors travel beside it in the order of the slots, and inside a slot in the order
//! client, backend, aside.

use super::store::Farewell;
use super::store::GlobalName;
use super::store::Slot;
use crate::config::limits::KEEPER_DROPS_PER_MESSAGE_MAX;
use crate::config::limits::KEEPER_PUTS_PER_MESSAGE_MAX;

const MARK: [u8; 4] = *b"PGSK";
/// Of all messages. A keeper can be older than its router: a change needs a new number, and
/// routers that still speak the old one.
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
/// A slot's number, then which parts it has as bits, then three bytes of nothing.
const PUT_BYTES: usize = 8;
const DROP_BYTES: usize = 4;
/// Client, backend and aside.
const PARTS: u8 = 0b111;

/// Which descriptors of a slot are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartMask(u8);

impl PartMask {
    pub(super) fn new(parts: [bool; 3]) -> Option<Self> {
        let bits = u8::from(parts[0]) | u8::from(parts[1]) << 1 | u8::from(parts[2]) << 2;
        (bits != 0).then_some(Self(bits))
    }

    pub(super) fn parts(self) -> [bool; 3] {
        [0, 1, 2].map(|bit| self.0 & (1 << bit) != 0)
    }

    pub(super) fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// Why a keeper does not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another router is attached, or another one waits to take over.
    Busy,
    /// The attached router did not let go in time.
    NotLetGo,
    /// No router waits to take over.
    NobodyWaits,
    /// No more descriptors, slots or names.
    Full,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Router: here I am.
    Hello { take_over: bool },
    /// Keeper: you are the router now.
    Welcome { globals: u32, slots: u32 },
    /// Keeper: no; with the process that is in the way, or zero.
    Refused { refusal: Refusal, process_id: u32 },
    /// Either: one named descriptor.
    Global(GlobalName),
    /// Router: let go of a name.
    DropGlobal(GlobalName),
    /// Either: slots with their descriptors.
    Slots(Vec<(Slot, PartMask)>),
    /// Router: let go of slots. Keeper: there was no room for them.
    DropSlots(Vec<Slot>),
    /// Router: give me everything.
    TakeAll,
    /// Keeper: that was everything.
    End { globals: u32, slots: u32 },
    /// Router: I leave.
    Goodbye(Farewell),
    /// Keeper: another router takes what you left.
    Released,
    /// Keeper: another router waits.
    LetGo { process_id: u32 },
    /// Anybody: how are you?
    Inquire,
    /// Keeper: the router's process id, or zero, and what is kept.
    Report {
        process_id: u32,
        globals: u32,
        slots: u32,
    },
    /// Keeper, before it ends at once.
    NotBegun(String),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a packet that is no message")]
    Mark,
    #[error("version {0} of the keeper's protocol; this program speaks {VERSION}")]
    Version(u16),
    #[error("a message of unknown kind {0}")]
    Kind(u16),
    #[error("a message whose content does not fit its kind {0}")]
    Content(u16),
}

impl Message {
    /// How many descriptors travel beside it.
    pub(super) fn descriptors(&self) -> usize {
        match self {
            Self::Global(_) => 1,
            Self::Slots(slots) => slots.iter().map(|(_, mask)| mask.count()).sum(),
            _ => 0,
        }
    }

    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, count, value) = self.header();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + PUT_BYTES);
        bytes.extend_from_slice(&MARK);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&value.to_le_bytes());
        match self {
            Self::Global(name) | Self::DropGlobal(name) => {
                bytes.extend_from_slice(name.as_str().as_bytes());
            }
            Self::Slots(slots) => {
                for (slot, mask) in slots {
                    bytes.extend_from_slice(&slot.number().to_le_bytes());
                    bytes.extend_from_slice(&[mask.0, 0, 0, 0]);
                }
            }
            Self::DropSlots(slots) => {
                for slot in slots {
                    bytes.extend_from_slice(&slot.number().to_le_bytes());
                }
            }
            Self::Report { slots, .. } => bytes.extend_from_slice(&slots.to_le_bytes()),
            Self::NotBegun(why) => bytes.extend_from_slice(why.as_bytes()),
            _ => {}
        }
        bytes
    }

    /// Kind, count and value.
    fn header(&self) -> (u16, u32, u32) {
        match self {
            Self::Hello { take_over } => (1, 0, u32::from(*take_over)),
            Self::Welcome { globals, slots } => (2, *globals, *slots),
            Self::Refused {
                refusal,
                process_id,
            } => (3, *refusal as u32, *process_id),
            Self::Global(_) => (4, 0, 0),
            Self::DropGlobal(_) => (5, 0, 0),
            Self::Slots(slots) => (6, slots.len() as u32, 0),
            Self::DropSlots(slots) => (7, slots.len() as u32, 0),
            Self::TakeAll => (8, 0, 0),
            Self::End { globals, slots } => (9, *globals, *slots),
            Self::Goodbye(farewell) => (10, 0, u32::from(*farewell == Farewell::HandingOver)),
            Self::Released => (11, 0, 0),
            Self::LetGo { process_id } => (12, 0, *process_id),
            Self::Inquire => (13, 0, 0),
            Self::Report {
                process_id,
                globals,
                ..
            } => (14, *globals, *process_id),
            Self::NotBegun(_) => (15, 0, 0),
        }
    }

    /// From bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(MessageError::Mark)?;
        if header[..4] != MARK {
            return Err(MessageError::Mark);
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        let kind = u16::from_le_bytes([header[6], header[7]]);
        let count = word(&header[8..12]);
        let value = word(&header[12..16]);
        if !(1..=15).contains(&kind) {
            return Err(MessageError::Kind(kind));
        }
        content(kind, count, value, rest).ok_or(MessageError::Content(kind))
    }
}

/// None where the content does not fit the kind.
fn content(kind: u16, count: u32, value: u32, rest: &[u8]) -> Option<Message> {
    let message = match kind {
        4 => return Some(Message::Global(name(rest)?)),
        5 => return Some(Message::DropGlobal(name(rest)?)),
        6 => return puts(count, rest).map(Message::Slots),
        7 => return drops(count, rest).map(Message::DropSlots),
        14 => {
            let slots = word(rest.get(..4).filter(|_| rest.len() == 4)?);
            return Some(Message::Report {
                process_id: value,
                globals: count,
                slots,
            });
        }
        15 => {
            let why = String::from_utf8_lossy(rest).into_owned();
            return Some(Message::NotBegun(why));
        }
        1 => Message::Hello {
            take_over: flag(value)?,
        },
        2 => Message::Welcome {
            globals: count,
            slots: value,
        },
        3 => Message::Refused {
            refusal: refusal(count)?,
            process_id: value,
        },
        8 => Message::TakeAll,
        9 => Message::End {
            globals: count,
            slots: value,
        },
        10 if flag(value)? => Message::Goodbye(Farewell::HandingOver),
        10 => Message::Goodbye(Farewell::Ended),
        11 => Message::Released,
        12 => Message::LetGo { process_id: value },
        13 => Message::Inquire,
        _ => return None,
    };
    rest.is_empty().then_some(message)
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn flag(value: u32) -> Option<bool> {
    match value {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn refusal(number: u32) -> Option<Refusal> {
    use Refusal::Busy;
    use Refusal::Full;
    use Refusal::NobodyWaits;
    use Refusal::NotLetGo;
    [Busy, NotLetGo, NobodyWaits, Full]
        .into_iter()
        .find(|refusal| *refusal as u32 == number)
}

fn name(bytes: &[u8]) -> Option<GlobalName> {
    GlobalName::new(std::str::from_utf8(bytes).ok()?)
}

fn puts(count: u32, rest: &[u8]) -> Option<Vec<(Slot, PartMask)>> {
    let count = usize::try_from(count).ok()?;
    if count == 0 || count > KEEPER_PUTS_PER_MESSAGE_MAX || rest.len() != count * PUT_BYTES {
        return None;
    }
    rest.chunks_exact(PUT_BYTES)
        .map(|entry| {
            let valid = entry[4] != 0 && entry[4] & !PARTS == 0 && entry[5..] == [0, 0, 0];
            let slot = Slot::new(word(&entry[..4]))?;
            valid.then_some((slot, PartMask(entry[4])))
        })
        .collect()
}

fn drops(count: u32, rest: &[u8]) -> Option<Vec<Slot>> {
    let count = usize::try_from(count).ok()?;
    if count == 0 || count > KEEPER_DROPS_PER_MESSAGE_MAX || rest.len() != count * DROP_BYTES {
        return None;
    }
    rest.chunks_exact(DROP_BYTES)
        .map(|entry| Slot::new(word(entry)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::limits::KEEPER_MESSAGE_BYTES_MAX;
    use crate::config::limits::KEEPER_MESSAGE_DESCRIPTORS_MAX;
    use crate::config::limits::KEEPER_SLOTS_MAX;

    fn slot() -> impl Strategy<Value = Slot> {
        (0..KEEPER_SLOTS_MAX).prop_map(|number| Slot::new(number).unwrap())
    }

    fn message() -> impl Strategy<Value = Message> {
        let name = || "[a-z0-9._-]{1,64}".prop_map(|name| GlobalName::new(name).unwrap());
        let mask = (1..=PARTS).prop_map(PartMask);
        prop_oneof![
            any::<bool>().prop_map(|take_over| Message::Hello { take_over }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(globals, slots)| Message::Welcome { globals, slots }),
            (0u32..4, any::<u32>()).prop_map(|(number, process_id)| Message::Refused {
                refusal: refusal(number).unwrap(),
                process_id
            }),
            name().prop_map(Message::Global),
            name().prop_map(Message::DropGlobal),
            prop::collection::vec((slot(), mask), 1..=KEEPER_PUTS_PER_MESSAGE_MAX)
                .prop_map(Message::Slots),
            prop::collection::vec(slot(), 1..=KEEPER_DROPS_PER_MESSAGE_MAX)
                .prop_map(Message::DropSlots),
            (any::<u32>(), any::<u32>())
                .prop_map(|(globals, slots)| Message::End { globals, slots }),
            (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(process_id, globals, slots)| {
                Message::Report {
                    process_id,
                    globals,
                    slots,
                }
            }),
            any::<u32>().prop_map(|process_id| Message::LetGo { process_id }),
            "[ -~]{0,200}".prop_map(Message::NotBegun),
            Just(Message::TakeAll),
            Just(Message::Released),
            Just(Message::Inquire),
            Just(Message::Goodbye(Farewell::Ended)),
            Just(Message::Goodbye(Farewell::HandingOver)),
        ]
    }

    proptest! {
        #[test]
        fn a_message_survives_the_wire(message in message()) {
            let bytes = message.encode();
            prop_assert!(bytes.len() <= KEEPER_MESSAGE_BYTES_MAX);
            prop_assert!(message.descriptors() <= KEEPER_MESSAGE_DESCRIPTORS_MAX);
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
        }

        #[test]
        fn a_message_cut_short_or_too_long_is_none(message in message(), cut in 1usize..16) {
            prop_assume!(!matches!(message, Message::Global(_) | Message::DropGlobal(_)));
            prop_assume!(!matches!(message, Message::NotBegun(_)));
            let mut bytes = message.encode();
            bytes.extend(std::iter::repeat_n(0, cut));
            prop_assert!(Message::decode(&bytes).is_err());
            bytes.truncate(bytes.len() - 2 * cut);
            prop_assert!(Message::decode(&bytes).is_err());
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0u16..20) {
            drop(Message::decode(&bytes));
            let mut marked = b"PGSK\x01\0".to_vec();
            marked.extend(kind.to_le_bytes());
            marked.extend(bytes);
            drop(Message::decode(&marked));
        }
    }

    #[test]
    fn another_version_is_told_apart_from_nonsense() {
        let mut bytes = Message::TakeAll.encode();
        bytes[4] = 2;
        assert_eq!(Message::decode(&bytes), Err(MessageError::Version(2)));
        assert_eq!(
            Message::decode(b"GET / HTTP/1.1\r\n"),
            Err(MessageError::Mark)
        );
    }
}
