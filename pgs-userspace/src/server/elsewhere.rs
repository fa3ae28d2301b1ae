//! Sessions that the router before this one goes on with: they are listed here, count among the
//! limits, can be cancelled, and are ended when their tenant's access is.
//!
//! Everything goes by the session table, which both have open. The other one writes how far they
//! are, adds what has logged in there late, and takes out what has ended.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgs_common::flow::SESSIONS_MAX;

use super::cancel::Issuer;
use super::connection::FrontDoor;
use super::lease::SessionLease;
use super::outliving::Known;
use super::outliving::parse;
use crate::config::directories::Directories;
use crate::config::limits::ARRIVAL_DEADLINE_DEFAULT;
use crate::config::limits::ELSEWHERE_ACCOUNT_INTERVAL;
use crate::config::limits::ELSEWHERE_LOOK_INTERVAL;
use crate::config::limits::ELSEWHERE_LOOKS_PER_ACCOUNT;
use crate::config::limits::LOGIN_PLACE_DEADLINE;
use crate::datapath::meter::Path;
use crate::keeper::owner::Owner;
use crate::keeper::store::Slot;
use crate::keeper::table::Entry;
use crate::keeper::table::Record;
use crate::keeper::table::SessionTable;
use crate::keeper::table::Totals;
use crate::protocol::cancel::CancelKey;

/// All of them.
#[derive(Debug)]
pub(super) struct Elsewhere {
    door: Arc<FrontDoor>,
    directories: Directories,
    table: Arc<SessionTable>,
    guests: Vec<Guest>,
    /// Their places in the kernel's tables, those of sessions that cannot be listed included.
    places: HashSet<u32>,
}

/// One of them.
#[derive(Debug)]
struct Guest {
    slot: Slot,
    owner: Owner,
    /// Its id.
    session: u64,
    /// None where it cannot be listed: of its record no more is known.
    lease: Option<SessionLease>,
}

impl Elsewhere {
    /// Those that the table knows, beside the sessions at these slots, which are this router's.
    pub(super) fn find(
        door: &Arc<FrontDoor>,
        directories: &Directories,
        table: &Arc<SessionTable>,
        resumed: impl Iterator<Item = Slot>,
    ) -> Self {
        let mut elsewhere = Self {
            door: Arc::clone(door),
            directories: directories.clone(),
            table: Arc::clone(table),
            guests: Vec::new(),
            places: HashSet::new(),
        };
        let mut owners = Owners::default();
        match table.owned() {
            Ok(owned) => {
                let mut seen: HashSet<u64> =
                    resumed.filter_map(|slot| id_at(table, slot)).collect();
                let ids = owned.iter().map(|(_, record, _)| record.session);
                if let Some(highest) = seen.iter().copied().chain(ids).max() {
                    door.sessions.count_beyond(highest);
                }
                for (slot, record, totals) in owned {
                    // Two routers that are left behind may have counted on from the same number.
                    let id = match seen.insert(record.session) {
                        true => record.session,
                        false => door.sessions.fresh_id(),
                    };
                    elsewhere.take_in(slot, *record, totals, id, &mut owners);
                }
            }
            Err(error) => {
                tracing::error!(%error, "what the last router goes on with is not known");
            }
        }
        if !elsewhere.guests.is_empty() {
            let sessions = elsewhere.guests.len();
            tracing::info!(sessions, "the router before this one goes on with sessions");
        }
        elsewhere
    }

    /// Their places in the kernel's tables, which nobody else may have.
    pub(super) fn places(&self) -> HashSet<u32> {
        self.places.clone()
    }

    /// Lists it by this id.
    fn take_in(
        &mut self,
        slot: Slot,
        record: Record,
        totals: Option<Totals>,
        id: u64,
        owners: &mut Owners,
    ) {
        let Some(owner) = record.owner else {
            return;
        };
        if !owners.is_alive(owner) {
            // Killed, and its sessions with it.
            if let Err(error) = self.table.clear_of(slot, owner, record.session) {
                tracing::warn!(%error, slot = slot.number(), "a session's record stays");
            }
            return;
        }
        if slot.number() < SESSIONS_MAX {
            self.places.insert(slot.number());
        }
        let path = Path::of_number(record.path);
        let mut guest = Guest {
            slot,
            owner,
            session: record.session,
            lease: None,
        };
        match parse(record, totals) {
            Ok(known) => self.list(&mut guest, Known { id, ..known }, path),
            Err(why) => {
                tracing::warn!(
                    slot = slot.number(),
                    why,
                    "a session elsewhere is not listed"
                );
            }
        }
        // Looked at in any case: its place is to be used again.
        self.guests.push(guest);
    }

    /// Those that have begun there since: whoever had said nothing yet, or waited for its turn.
    fn find_later(&mut self, owners: &mut Owners) {
        let known: HashSet<u32> = self.guests.iter().map(|one| one.slot.number()).collect();
        let owned = match self.table.owned_from(SESSIONS_MAX) {
            Ok(owned) => owned,
            Err(error) => return tracing::warn!(%error, "what begins elsewhere is not known"),
        };
        for (slot, record, totals) in owned {
            let own = record
                .owner
                .is_some_and(|one| one.process_id == std::process::id());
            if !own && !known.contains(&slot.number()) {
                // Its own may be a session's of this router by now: both have counted on.
                let id = self.door.sessions.fresh_id();
                self.take_in(slot, *record, totals, id, owners);
            }
        }
    }

    fn list(&self, guest: &mut Guest, known: Known, path: Path) {
        let mut identity = known.identity;
        if path == Path::Tls {
            // Passed through, it has told nobody here who it is.
            let told = |name: &String| !name.is_empty();
            identity.user = identity.user.filter(told);
            identity.database = identity.database.filter(told);
        }
        let lease =
            self.door
                .sessions
                .note(known.id, identity, known.meter, guest.owner.process_id);
        let session = lease.session();
        session
            .backend_pid
            .store(known.backend_process_id.into(), Relaxed);
        let meter = &session.meter;
        meter.observe(path, meter.relayed_to_backend(), meter.relayed_to_client());
        guest.lease = Some(lease);
        guest.learn_key(
            &self.door,
            &self.directories,
            known.backend_process_id,
            known.key,
        );
    }

    /// Looks at them until there are none, and none can come: they do so where a router was taken
    /// over, or has left some already.
    pub(super) async fn watch(mut self, took_over: bool) {
        if !took_over && self.guests.is_empty() {
            return;
        }
        // So long a connection that the other one has accepted may take to begin its session.
        let arrival_deadline = self.door.live.rules().configuration.limits.arrival_deadline;
        let late = arrival_deadline.max(ARRIVAL_DEADLINE_DEFAULT) + LOGIN_PLACE_DEADLINE;
        // And either router a look.
        let none_come = Instant::now() + late + 2 * ELSEWHERE_ACCOUNT_INTERVAL;
        let mut some = !self.guests.is_empty();
        for look in 1_u32.. {
            if self.guests.is_empty() && Instant::now() > none_come {
                break;
            }
            tokio::time::sleep(ELSEWHERE_LOOK_INTERVAL).await;
            let mut owners = Owners::default();
            let mut guests = std::mem::take(&mut self.guests);
            guests.retain_mut(|guest| self.look_at(guest, &mut owners));
            self.guests = guests;
            if look % ELSEWHERE_LOOKS_PER_ACCOUNT == 0 {
                self.find_later(&mut owners);
            }
            some |= !self.guests.is_empty();
        }
        if some {
            tracing::info!("the router before this one has no session any more");
        }
    }

    /// Whether it goes on.
    fn look_at(&self, guest: &mut Guest, owners: &mut Owners) -> bool {
        let (table, slot) = (&self.table, guest.slot);
        let alive = owners.is_alive(guest.owner);
        match table.read(slot) {
            Ok(Entry::Session(record, totals))
                if alive
                    && record.owner == Some(guest.owner)
                    && record.session == guest.session =>
            {
                self.follow(guest, &record, totals);
                return true;
            }
            // Just being written, or not to be read at this moment.
            Ok(Entry::Invalid) | Err(_) if alive => return true,
            Ok(Entry::Session(record, _)) if record.owner != Some(guest.owner) => return false,
            _ => {}
        }
        if !alive && let Err(error) = table.clear(slot) {
            tracing::warn!(%error, slot = slot.number(), "a session's record stays");
        }
        if slot.number() < SESSIONS_MAX {
            self.door.data_path.reclaim(slot.number());
        }
        false
    }

    /// Its record says how far it is.
    fn follow(&self, guest: &mut Guest, record: &Record, totals: Option<Totals>) {
        let Some(lease) = &guest.lease else {
            return;
        };
        let session = Arc::clone(lease.session());
        if let Some(totals) = totals {
            let path = Path::of_number(record.path);
            session
                .meter
                .observe(path, totals.to_backend, totals.to_client);
        }
        let key = CancelKey::new(&record.cancel_key).ok();
        let process_id = record.backend_process_id;
        guest.learn_key(&self.door, &self.directories, process_id, key);
        if session.ending().is_some()
            && let Err(error) = self.table.ask_for_end(guest.slot)
        {
            tracing::warn!(%error, session = session.id, "its end cannot be asked for");
        }
    }
}

/// Of the session at a slot.
fn id_at(table: &SessionTable, slot: Slot) -> Option<u64> {
    match table.read(slot) {
        Ok(Entry::Session(record, _)) => Some(record.session),
        Ok(Entry::Empty | Entry::Invalid) | Err(_) => None,
    }
}

impl Guest {
    fn learn_key(
        &mut self,
        door: &FrontDoor,
        directories: &Directories,
        process_id: u32,
        key: Option<CancelKey>,
    ) {
        let Some(lease) = &mut self.lease else {
            return;
        };
        let session = Arc::clone(lease.session());
        if let (Some(key), None) = (key, session.cancel_key.get()) {
            session.backend_pid.store(process_id.into(), Relaxed);
            let issuer = Issuer {
                tenant: session.tenant.clone(),
                socket_directory: directories.socket_directory(&session.tenant),
            };
            lease.learn_key(door.cancels.register(process_id, key, issuer));
        }
    }
}

/// Which of the processes that have sessions run, each asked for once.
#[derive(Debug, Default)]
struct Owners(HashMap<Owner, bool>);

impl Owners {
    fn is_alive(&mut self, owner: Owner) -> bool {
        // A process does not wait for itself: it may have the number of one that is gone.
        let is_other = owner.process_id != std::process::id();
        *self
            .0
            .entry(owner)
            .or_insert_with(|| is_other && owner.is_alive())
    }
}
