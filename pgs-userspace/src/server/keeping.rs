//! Keeps each session's descriptors and what is known of it where they outlive this process.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::sessions::Session;
use super::survival::Kept;
use crate::datapath::handover::SessionSockets;
use crate::keeper::store::DescriptorStore;
use crate::keeper::store::GlobalName;
use crate::keeper::store::Slot;
use crate::keeper::store::SlotDescriptors;
use crate::keeper::table::Record;
use crate::keeper::table::SessionTable;
use crate::keeper::table::Totals;
use crate::protocol::cancel::CancelKey;

/// Under which name the session table is kept.
pub(super) const TABLE: &str = "table";

/// Where sessions are kept. Set once, when the data path runs; before, and where nothing keeps
/// them, sessions end with this process.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    place: OnceLock<Place>,
}

#[derive(Debug)]
struct Place {
    store: Arc<dyn DescriptorStore>,
    table: Arc<SessionTable>,
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

    /// The kernel can move this session's bytes without this process.
    pub(super) fn keep(
        &self,
        number: u32,
        session: &Session,
        key: Option<&CancelKey>,
        sockets: SessionSockets<'_>,
    ) {
        let (Some(place), Some(slot)) = (self.place.get(), Slot::new(number)) else {
            return;
        };
        let (record, totals) = describe(session, key);
        // The record first: a slot without one is nobody's.
        if let Err(error) = place.table.write(slot, &record, totals) {
            tracing::warn!(%error, session = session.id, "this session ends with this process");
            return;
        }
        let descriptors = SlotDescriptors {
            client: Some(sockets.client),
            backend: Some(sockets.backend),
            spill: Some(sockets.aside),
        };
        if let Err(error) = place.store.put_slot(slot, &descriptors) {
            tracing::debug!(%error, session = session.id, "this session ends with this process");
        }
    }

    /// Another router takes over, and this process goes on with the session all the same.
    pub(super) fn stay(&self, number: u32, session: &Session, key: Option<&CancelKey>) {
        let (Some(place), Some(slot)) = (self.place.get(), Slot::new(number)) else {
            return;
        };
        let (mut record, totals) = describe(session, key);
        record.owner = Some(std::process::id());
        if let Err(error) = place.table.write(slot, &record, totals) {
            tracing::warn!(%error, session = session.id, "the other router may end this session");
        }
        if let Err(error) = place.store.drop_slot(slot) {
            tracing::debug!(%error, slot = number, "a slot is kept by nobody");
        }
    }

    /// It cannot any more.
    pub(super) fn let_go(&self, number: u32) {
        let (Some(place), Some(slot)) = (self.place.get(), Slot::new(number)) else {
            return;
        };
        if let Err(error) = place.store.drop_slot(slot) {
            tracing::debug!(%error, slot = number, "a slot is kept by nobody");
        }
        if let Err(error) = place.table.clear(slot) {
            tracing::warn!(%error, slot = number, "a session's record stays");
        }
    }
}

fn describe(session: &Session, key: Option<&CancelKey>) -> (Record, Totals) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let begun = now.saturating_sub(session.meter.age());
    let record = Record {
        owner: None,
        session: session.id,
        begun_microseconds: u64::try_from(begun.as_micros()).unwrap_or(u64::MAX),
        backend_process_id: session.backend_pid.load(Relaxed) as u32,
        path: 0,
        client: Some(session.client),
        cancel_key: key.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
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
