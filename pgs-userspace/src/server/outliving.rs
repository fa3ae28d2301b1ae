//! Sessions that go on without a router.

use std::net::Shutdown;

use socket2::SockRef;

use super::survival::Kept;
use crate::keeper::store::Held;
use crate::keeper::store::Slot;
use crate::keeper::store::SlotDescriptors;

/// What moves bytes without this process, and lets another process go on with them.
pub(super) trait Outliving {
    /// Goes on with the sessions that the last router has left; ends those that it cannot go on
    /// with.
    fn resume(&self, held: Held);

    /// A new keeper has come in the place of one that is gone: every slot is put again.
    fn resupply(&self);

    /// Another router takes over. Sessions that go on by themselves are no more this router's;
    /// those whose bytes it moves itself stay with it, so that their slots are dropped.
    fn release(&self);
}

/// A data path whose sessions end with it.
#[derive(Debug)]
pub(super) struct NothingOutlives {
    kept: Kept,
}

impl NothingOutlives {
    pub(super) fn new(kept: Kept) -> Self {
        Self { kept }
    }
}

impl Outliving for NothingOutlives {
    fn resume(&self, held: Held) {
        if !held.slots.is_empty() {
            let sessions = held.slots.len();
            tracing::warn!(sessions, "ending the sessions of a router of another kind");
        }
        for (slot, descriptors) in held.slots {
            end(&descriptors);
            drop_slot(&self.kept, slot);
        }
    }

    fn resupply(&self) {}

    fn release(&self) {}
}

/// Closing alone would not do: the keeper has the sockets open too.
fn end<D: std::os::fd::AsFd>(descriptors: &SlotDescriptors<D>) {
    for socket in [&descriptors.client, &descriptors.backend]
        .into_iter()
        .flatten()
    {
        // It may have ended by itself.
        drop(SockRef::from(socket).shutdown(Shutdown::Both));
    }
}

fn drop_slot(kept: &Kept, slot: Slot) {
    if let Kept::By(store) = kept
        && let Err(error) = store.drop_slot(slot)
    {
        tracing::warn!(%error, slot = slot.number(), "a slot is still kept");
    }
}
