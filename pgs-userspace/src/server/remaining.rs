//! Sessions that stay with this router after another has taken over: what the other is told of
//! them, and what it asks for.
//!
//! Each has a record in the session table. Those that were in the kernel have it at their own
//! place; the others behind all places. Only this process writes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use pgs_common::flow::SESSIONS_MAX;

use super::connection::FrontDoor;
use super::keeping::Keeping;
use super::keeping::describe;
use super::sessions::Session;
use super::sessions::Sessions;
use crate::config::limits::ELSEWHERE_LOOK_INTERVAL;
use crate::config::limits::ELSEWHERE_LOOKS_PER_ACCOUNT;
use crate::config::limits::KEEPER_SLOTS_MAX;
use crate::datapath::handover::CloseReason;
use crate::datapath::meter::Path;
use crate::keeper::owner::Owner;
use crate::keeper::store::Slot;
use crate::keeper::table::Entry;
use crate::keeper::table::Record;
use crate::keeper::table::SessionTable;
use crate::keeper::table::Totals;

/// Where each of them is in the table, by its id.
#[derive(Debug, Default)]
pub(super) struct Remaining {
    /// So that the end of a session costs nothing as long as there is none.
    some: AtomicBool,
    places: Mutex<HashMap<u64, Written>>,
}

/// What stands in the table of one session.
#[derive(Debug)]
struct Written {
    slot: Slot,
    record: Record,
    totals: Totals,
}

impl Remaining {
    /// One more stays; it has its record at this slot.
    pub(super) fn add(&self, table: &SessionTable, slot: Slot, session: &Session) {
        let (mut record, totals) = describe(session);
        record.owner = Some(Owner::this());
        if let Err(error) = table.write(slot, &record, totals) {
            tracing::warn!(%error, session = session.id, "the other router may end this session");
        }
        self.some.store(true, SeqCst);
        let written = Written {
            slot,
            record,
            totals,
        };
        self.places().insert(session.id, written);
    }

    /// The same of one that may have ended since it was listed: then nobody else would clear its
    /// record.
    fn add_listed(&self, table: &SessionTable, slot: Slot, session: &Session, sessions: &Sessions) {
        self.add(table, slot, session);
        if !sessions.is_live(session.id) {
            self.clear(table, session.id);
        }
    }

    /// One has ended: its record goes with it.
    fn clear(&self, table: &SessionTable, session: u64) {
        let Some(written) = self.places().remove(&session) else {
            return;
        };
        // What was at a place in the kernel may be gone already, and another router's since.
        let (slot, owner) = (written.slot, Owner::this());
        if let Err(error) = table.clear_of(slot, owner, session) {
            tracing::warn!(%error, session, "a session's record stays");
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<u64, Written>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeping {
    /// Another router takes over, or has: tells it of every session that stays and of which it does
    /// not know yet. Those in the kernel have been told of by their workers, or are left to it.
    pub(super) fn remain(&self, door: &FrontDoor) {
        let Some(place) = self.place() else {
            return;
        };
        let alone = door.data_path.findings().one_way.is_none();
        let mut free = (SESSIONS_MAX..KEEPER_SLOTS_MAX).filter_map(Slot::new);
        // Another's that left before may be there.
        let mut free = free.by_ref().filter(|slot| is_free(&place.table, *slot));
        for session in door.sessions.list(None) {
            let told = alone && session.meter.path() == Path::Kernel
                || self.remaining.places().contains_key(&session.id);
            if told || session.elsewhere.is_some() {
                continue;
            }
            match free.next() {
                Some(slot) => {
                    let (table, sessions) = (&place.table, &door.sessions);
                    self.remaining.add_listed(table, slot, &session, sessions);
                }
                None => tracing::warn!(session = session.id, "the other router does not list it"),
            }
        }
        self.account(door);
    }

    /// Writes down anew how far each is.
    fn account(&self, door: &FrontDoor) {
        let Some(place) = self.place() else {
            return;
        };
        let sessions = door.sessions.list(None);
        let mut places = self.remaining.places();
        for session in sessions {
            let Some(written) = places.get_mut(&session.id) else {
                continue;
            };
            let (mut record, mut totals) = describe(&session);
            record.owner = Some(Owner::this());
            let in_kernel = door.data_path.kernel_bytes(&session.meter);
            totals.to_backend += in_kernel.to_backend;
            totals.to_client += in_kernel.to_client;
            // The begin is reckoned from the age, which two looks at a clock never agree on.
            record.begun_microseconds = written.record.begun_microseconds;
            let done = if record != written.record {
                place.table.write(written.slot, &record, totals)
            } else if totals != written.totals {
                place.table.write_totals(written.slot, totals)
            } else {
                continue;
            };
            match done {
                Ok(()) => (written.record, written.totals) = (record, totals),
                Err(error) => tracing::debug!(%error, session = session.id, "its record stays"),
            }
        }
    }

    /// A session has ended: its record goes with it.
    pub(super) fn forget(&self, session: u64) {
        if !self.remaining.some.load(SeqCst) {
            return;
        }
        if let Some(place) = self.place() {
            self.remaining.clear(&place.table, session);
        }
    }

    /// No other router takes over. The records of what is in the kernel are the workers' to write.
    pub(super) fn remain_no_more(&self) {
        let written: Vec<_> = self.remaining.places().drain().collect();
        self.remaining.some.store(false, SeqCst);
        let Some(place) = self.place() else {
            return;
        };
        for (session, written) in written {
            if written.slot.number() >= SESSIONS_MAX
                && let Err(error) = place.table.clear(written.slot)
            {
                tracing::warn!(%error, session, "a session's record stays");
            }
        }
    }

    /// The sessions whose end the other router asks for.
    fn asked_for(&self, table: &SessionTable) -> Vec<u64> {
        let places = self.remaining.places();
        let asked = places.iter().filter(|(_, written)| {
            // What cannot be read is looked at again the next time that anything is asked for.
            table.is_asked_for_end(written.slot).unwrap_or(false)
        });
        asked.map(|(session, _)| *session).collect()
    }
}

fn is_free(table: &SessionTable, slot: Slot) -> bool {
    matches!(table.read(slot), Ok(Entry::Empty))
}

/// Keeps the other router informed, and does what it asks for, until the process ends.
pub(super) async fn mind(door: Arc<FrontDoor>) {
    let keeping = &door.sessions.keeping;
    let Some(place) = keeping.place() else {
        return;
    };
    let mut asked = 0;
    for look in 1_u32.. {
        tokio::time::sleep(ELSEWHERE_LOOK_INTERVAL).await;
        if look % ELSEWHERE_LOOKS_PER_ACCOUNT == 0 {
            // Logins that began before the hand-over become sessions after it.
            keeping.remain(&door);
        }
        match place.table.asked() {
            Ok(now) if now != asked => asked = now,
            _ => continue,
        }
        let wanted = keeping.asked_for(&place.table);
        let mut sessions = door.sessions.list(None);
        sessions.retain(|session| wanted.contains(&session.id));
        for session in &sessions {
            tracing::info!(session = session.id, "the other router asks for its end");
        }
        Sessions::end(&sessions, &CloseReason::Terminated, &door.data_path);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sessions::Identity;
    use super::*;
    use crate::tenant::id::TenantId;
    use crate::tenant::settings::TenantSettings;

    #[test]
    fn one_that_has_ended_since_it_was_listed_has_no_record() {
        let sessions = Arc::new(Sessions::new(2));
        let begin = || {
            let identity = Identity {
                tenant: TenantId::parse("acme").unwrap(),
                user: None,
                database: None,
                client: ([127, 0, 0, 1], 1).into(),
            };
            sessions
                .begin(identity, &TenantSettings::default())
                .unwrap()
        };
        let (_goes_on, ends) = (begin(), begin());
        let listed = sessions.list(None);
        drop(ends);
        let (table, remaining) = (SessionTable::create().unwrap(), Remaining::default());
        let slots = [0, 1].map(|number| Slot::new(SESSIONS_MAX + number).unwrap());
        for (slot, session) in slots.iter().zip(&listed) {
            remaining.add_listed(&table, *slot, session, &sessions);
        }
        assert!(!is_free(&table, slots[0]) && is_free(&table, slots[1]));
        assert_eq!(remaining.places().len(), 1);
    }
}
