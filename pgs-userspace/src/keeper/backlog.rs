//! What waits for a keeper whose queue is full: for each slot only what is to be true at last.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Release;

use nix::sys::eventfd::EfdFlags;
use nix::sys::eventfd::EventFd;

use super::holdings::gather;
use super::message::Message;
use super::store::Slot;
use super::store::SlotDescriptors;
use crate::config::limits::KEEPER_BACKLOG_SLOTS_MAX;
use crate::config::limits::KEEPER_DROPS_PER_MESSAGE_MAX;
use crate::config::limits::KEEPER_PUT_DEADLINE;
use crate::config::limits::KEEPER_PUTS_PER_MESSAGE_MAX;

/// What is to be true of a slot: its descriptors, or none.
type Wanted = Option<SlotDescriptors<OwnedFd>>;

/// The keeper has taken nothing for too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stuck;

/// Bounded: drops by the number of slots there are, puts by
/// [`KEEPER_BACKLOG_SLOTS_MAX`], since their descriptors are copies.
#[derive(Debug)]
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    /// Signalled when there may be room for a put again.
    room: Condvar,
    /// Entries that are not sent yet, those under way included. Read without the lock.
    unsent: AtomicUsize,
    wake: EventFd,
}

#[derive(Debug, Default)]
struct Waiting {
    slots: BTreeMap<Slot, Wanted>,
    puts: usize,
}

impl Waiting {
    fn insert(&mut self, slot: Slot, wanted: Wanted) {
        self.puts += usize::from(wanted.is_some());
        if let Some(Some(_)) = self.slots.insert(slot, wanted) {
            self.puts -= 1;
        }
    }

    fn remove(&mut self, slot: Slot) -> Option<Wanted> {
        let wanted = self.slots.remove(&slot)?;
        self.puts -= usize::from(wanted.is_some());
        Some(wanted)
    }
}

/// Entries taken out to be sent in one message.
#[derive(Debug)]
pub(super) struct Batch {
    entries: Vec<(Slot, Wanted)>,
}

impl Batch {
    /// One message: of a batch either all entries are puts, or none is.
    pub(super) fn message(&self) -> (Message, Vec<BorrowedFd<'_>>) {
        let puts = self.entries.iter().filter_map(|(slot, wanted)| {
            let descriptors = wanted.as_ref()?;
            Some((*slot, descriptors.borrowed()))
        });
        match self.entries.first() {
            Some((_, Some(_))) => gather(puts),
            _ => {
                let slots = self.entries.iter().map(|(slot, _)| *slot).collect();
                (Message::DropSlots(slots), Vec::new())
            }
        }
    }
}

impl Backlog {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            waiting: Mutex::default(),
            room: Condvar::new(),
            unsent: AtomicUsize::new(0),
            wake: EventFd::from_flags(flags)?,
        })
    }

    /// Whether nothing waits: what is sent past the backlog then overtakes nothing of its slot.
    pub(super) fn is_empty(&self) -> bool {
        self.unsent.load(Acquire) == 0
    }

    /// Readable when there is something to do.
    pub(super) fn wake_descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Wakes who waits for that.
    pub(super) fn wake(&self) {
        // Full means that it is readable already.
        self.wake.write(1).ok();
    }

    /// After having been woken.
    pub(super) fn woken(&self) {
        // Empty means that there was nothing to take back.
        self.wake.read().ok();
    }

    /// Adds what is to be true of a slot; a put waits for room.
    pub(super) fn push(&self, slot: Slot, wanted: Wanted) -> Result<(), Stuck> {
        let mut waiting = self.lock();
        if wanted.is_some() {
            let full = |waiting: &mut Waiting| waiting.puts >= KEEPER_BACKLOG_SLOTS_MAX;
            let (guard, result) = self
                .room
                .wait_timeout_while(waiting, KEEPER_PUT_DEADLINE, full)
                .unwrap_or_else(PoisonError::into_inner);
            if result.timed_out() {
                return Err(Stuck);
            }
            waiting = guard;
        }
        waiting.insert(slot, wanted);
        self.unsent.fetch_add(1, Release);
        drop(waiting);
        self.wake();
        Ok(())
    }

    /// As many as fit into one message, puts before drops.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        let (puts, max) = match waiting.puts {
            0 => (false, KEEPER_DROPS_PER_MESSAGE_MAX),
            _ => (true, KEEPER_PUTS_PER_MESSAGE_MAX),
        };
        let of_kind = waiting
            .slots
            .iter()
            .filter(|(_, one)| one.is_some() == puts);
        let slots: Vec<Slot> = of_kind.map(|(slot, _)| *slot).take(max).collect();
        let take = |slot| Some((slot, waiting.remove(slot)?));
        let entries: Vec<_> = slots.into_iter().filter_map(take).collect();
        (!entries.is_empty()).then_some(Batch { entries })
    }

    /// The batch has been sent.
    pub(super) fn sent(&self, batch: Batch) {
        drop(batch);
        let waiting = self.lock();
        self.unsent.store(waiting.slots.len(), Release);
        self.room.notify_all();
    }

    /// The batch could not be sent: what has not been overtaken by something newer waits again.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut waiting = self.lock();
        for (slot, wanted) in batch.entries {
            if !waiting.slots.contains_key(&slot) {
                waiting.insert(slot, wanted);
            }
        }
    }

    /// The keeper is gone: nothing of it counts any more.
    pub(super) fn clear(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting::default();
        self.unsent.store(0, Release);
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock can leave its content half-changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u32) -> Slot {
        Slot::new(number).unwrap()
    }

    fn descriptors() -> Wanted {
        let file: OwnedFd = std::os::unix::net::UnixDatagram::unbound().unwrap().into();
        Some(SlotDescriptors::from_parts([Some(file), None, None]))
    }

    #[test]
    fn only_the_last_word_about_a_slot_is_sent() {
        let backlog = Backlog::new().unwrap();
        backlog.push(slot(1), descriptors()).unwrap();
        backlog.push(slot(1), None).unwrap();
        backlog.push(slot(2), None).unwrap();
        backlog.push(slot(2), descriptors()).unwrap();
        let batch = backlog.take().unwrap();
        let (message, files) = batch.message();
        assert!(matches!(&message, Message::Slots(slots) if slots[0].0 == slot(2)));
        assert_eq!((message.descriptors(), files.len()), (1, 1));
        drop(files);
        backlog.sent(batch);
        assert!(!backlog.is_empty());
        let batch = backlog.take().unwrap();
        assert_eq!(batch.message().0, Message::DropSlots(vec![slot(1)]));
        backlog.sent(batch);
        assert!(backlog.is_empty() && backlog.take().is_none());
    }

    #[test]
    fn what_is_put_back_is_sent_again() {
        let backlog = Backlog::new().unwrap();
        backlog.push(slot(1), descriptors()).unwrap();
        let batch = backlog.take().unwrap();
        backlog.put_back(batch);
        let batch = backlog.take().unwrap();
        assert!(matches!(batch.message().0, Message::Slots(slots) if slots[0].0 == slot(1)));
        backlog.sent(batch);
        assert!(backlog.is_empty());
    }

    #[test]
    fn what_is_put_back_does_not_overtake_what_came_since() {
        let backlog = Backlog::new().unwrap();
        backlog.push(slot(1), descriptors()).unwrap();
        let batch = backlog.take().unwrap();
        assert!(!backlog.is_empty(), "it is under way");
        backlog.push(slot(1), None).unwrap();
        backlog.put_back(batch);
        let batch = backlog.take().unwrap();
        assert_eq!(batch.message().0, Message::DropSlots(vec![slot(1)]));
    }

    #[test]
    fn a_put_without_room_waits_and_then_fails() {
        let backlog = Backlog::new().unwrap();
        for number in 0..KEEPER_BACKLOG_SLOTS_MAX as u32 {
            backlog.push(slot(number), descriptors()).unwrap();
        }
        let one_more = slot(KEEPER_BACKLOG_SLOTS_MAX as u32);
        assert_eq!(backlog.push(one_more, descriptors()), Err(Stuck));
        backlog.push(one_more, None).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                // Longer than one wait: it is tried until there is room.
                while backlog.push(one_more, descriptors()).is_err() {}
            });
            let batch = backlog.take().unwrap();
            backlog.sent(batch);
            waiting.join().unwrap();
        });
    }
}
