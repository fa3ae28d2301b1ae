//! Keeps each session's descriptors and what is known of it where they outlive this process.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::remaining::Remaining;
use super::sessions::Session;
use super::survival::Kept;
use crate::datapath::handover::SessionSockets;
use crate::keeper::owner::Owner;
use crate::keeper::store::DescriptorStore;
use crate::keeper::store::GlobalName;
use crate::keeper::store::Slot;
use crate::keeper::store::SlotDescriptors;
use crate::keeper::table::Record;
use crate::keeper::table::SessionTable;
use crate::keeper::table::Totals;

/// Under which name the session table is kept.
pub(super) const TABLE: &str = "table";

/// Where sessions are kept. Set once, when the data path runs; before, and where nothing keeps
/// them, sessions end with this process.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    place: OnceLock<Place>,
    /// Sessions that stay here after another router has taken over.
    pub(super) remaining: Remaining,
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) store: Arc<dyn DescriptorStore>,
    pub(super) table: Arc<SessionTable>,
}

impl Keeping {
    /// From here on sessions are kept.
    pub(super) fn begin(&self, kept: &Kept, table: &Arc<SessionTable>) {
        let Kept::By(store) = kept else {
            return;
        };
        let name = GlobalName::new(TABLE);
        let put = name.map(|name| store.put_global(&name, table.descriptor()));
        if let Some(Err(error)) = put {
            tracing::warn!(%error, "sessions end with this process: their table is not kept");
            return;
        }
        let place = Place {
            store: Arc::clone(store),
            table: Arc::clone(table),
        };
        // It runs once.
        drop(self.place.set(place));
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.place.get()
    }

    /// The kernel can move this session's bytes without this process. Whether it is kept.
    pub(super) fn keep(&self, number: u32, session: &Session, sockets: SessionSockets<'_>) -> bool {
        let (Some(place), Some(slot)) = (self.place(), Slot::new(number)) else {
            return false;
        };
        let (record, totals) = describe(session);
        // The record first: a slot without one is nobody's.
        if let Err(error) = place.table.write(slot, &record, totals) {
            tracing::warn!(%error, session = session.id, "this session ends with this process");
            return false;
        }
        let descriptors = SlotDescriptors {
            client: Some(sockets.client),
            backend: Some(sockets.backend),
            aside: Some(sockets.aside),
        };
        match place.store.put_slot(slot, &descriptors) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, session = session.id, "it ends with this process");
                false
            }
        }
    }

    /// Whether what was kept there still is, as far as the store has said.
    pub(super) fn holds(&self, number: u32) -> bool {
        match (self.place(), Slot::new(number)) {
            (Some(place), Some(slot)) => place.store.holds_slot(slot),
            _ => false,
        }
    }

    /// Another router takes over, and this process goes on with the session all the same.
    pub(super) fn stay(&self, number: u32, session: &Session) {
        let (Some(place), Some(slot)) = (self.place(), Slot::new(number)) else {
            return;
        };
        self.remaining.add(&place.table, slot, session);
        drop_slot(place, slot);
    }

    /// It cannot any more: the session ends.
    pub(super) fn let_go(&self, number: u32, session: u64) {
        let (Some(place), Some(slot)) = (self.place(), Slot::new(number)) else {
            return;
        };
        drop_slot(place, slot);
        // From here on nobody writes the record anew of one that has stayed.
        self.forget(session);
        // Where another router has taken over, the place may be one of its sessions' by now.
        if let Err(error) = place.table.clear_of(slot, Owner::this(), session) {
            tracing::warn!(%error, slot = number, "a session's record stays");
        }
    }

    /// Nobody goes on with what is kept there, whosever it was.
    pub(super) fn discard(&self, number: u32) {
        let (Some(place), Some(slot)) = (self.place(), Slot::new(number)) else {
            return;
        };
        drop_slot(place, slot);
        if let Err(error) = place.table.clear(slot) {
            tracing::warn!(%error, slot = number, "a session's record stays");
        }
    }
}

fn drop_slot(place: &Place, slot: Slot) {
    if let Err(error) = place.store.drop_slot(slot) {
        tracing::debug!(%error, slot = slot.number(), "a slot is kept by nobody");
    }
}

/// What is to be known of a session.
pub(super) fn describe(session: &Session) -> (Record, Totals) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let begun = now.saturating_sub(session.meter.age());
    let key = session.cancel_key.get();
    let record = Record {
        owner: None,
        session: session.id,
        begun_microseconds: u64::try_from(begun.as_micros()).unwrap_or(u64::MAX),
        backend_process_id: session.backend_pid.load(Relaxed) as u32,
        path: session.meter.path() as u8,
        client: Some(session.client),
        cancel_key: key.map_or_else(Vec::new, |key| key.as_bytes().to_vec()),
        tenant: session.tenant.to_string(),
        user: session.user.clone().unwrap_or_default(),
        database: session.database.clone().unwrap_or_default(),
    };
    let totals = Totals {
        to_backend: session.meter.relayed_to_backend(),
        to_client: session.meter.relayed_to_client(),
    };
    (record, totals)
}
