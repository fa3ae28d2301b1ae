//! Sessions that go on without a router: taken over from the last one, and left to the next.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::SystemTime;

use socket2::SockRef;

use super::cancel::Issuer;
use super::connection::FrontDoor;
use super::elsewhere::Elsewhere;
use super::keeping::TABLE;
use super::sessions::Identity;
use super::survival::Kept;
use crate::config::directories::Directories;
use crate::datapath::handover::Orphan;
use crate::datapath::kernel::Inheritance;
use crate::datapath::kernel::is_kept_map;
use crate::datapath::meter::Meter;
use crate::keeper::store::GlobalName;
use crate::keeper::store::Held;
use crate::keeper::store::Slot;
use crate::keeper::store::SlotDescriptors;
use crate::keeper::table::Entry;
use crate::keeper::table::Record;
use crate::keeper::table::SessionTable;
use crate::keeper::table::Totals;
use crate::protocol::cancel::CancelKey;
use crate::tenant::id::TenantId;

/// What moves bytes without this process, and lets another process go on with them.
pub(super) trait Outliving {
    /// A new keeper has come in the place of one that is gone: what this router serves is put
    /// again.
    fn resupply(&self);

    /// Another router takes over. Sessions that go on by themselves are made ready for it, and
    /// nothing is done with them until it is said what became of that. Those whose bytes this
    /// router moves itself stay with it, so that their slots are dropped. False where it failed;
    /// then nothing may be left to another.
    fn release(&self) -> bool;

    /// The other router has taken over.
    fn released(&self);

    /// It has not: everything is this router's again.
    fn take_back(&self);
}

/// The sessions whose bytes the kernel moves.
#[derive(Debug)]
pub(super) struct KernelSessions {
    pub(super) door: Arc<FrontDoor>,
    pub(super) kept: Kept,
    pub(super) directories: Directories,
    /// What is known of each session, also where none goes on alone.
    pub(super) table: OnceLock<Arc<SessionTable>>,
}

/// What the last router has left, apart from its sessions.
#[derive(Debug)]
pub(super) struct Left {
    /// Its session table, or a new one.
    pub(super) table: SessionTable,
    /// Its other descriptors, by name.
    pub(super) descriptors: HashMap<String, OwnedFd>,
}

impl Left {
    /// Takes the named descriptors out of what is held.
    pub(super) fn of(held: &mut Held) -> std::io::Result<Self> {
        let mut descriptors: HashMap<String, OwnedFd> = held
            .globals
            .drain(..)
            .map(|(name, descriptor)| (name.as_str().to_owned(), descriptor))
            .collect();
        let kept = descriptors.remove(TABLE).map(SessionTable::open);
        let table = match kept.transpose()?.flatten() {
            Some(table) => table,
            None => SessionTable::create()?,
        };
        Ok(Self { table, descriptors })
    }

    /// The table, and what the data path inherits, with so many sessions that are to go on.
    pub(super) fn divided(self, sessions: usize) -> (SessionTable, Inheritance) {
        let descriptors = self.descriptors;
        let inheritance = Inheritance {
            descriptors,
            sessions,
        };
        (self.table, inheritance)
    }

    /// Names of the maps among them.
    pub(super) fn map_names(&self) -> Vec<String> {
        let names = self.descriptors.keys();
        names.filter(|name| is_kept_map(name)).cloned().collect()
    }
}

impl KernelSessions {
    /// Keeps what sessions need to go on, and goes on with those of the last router.
    /// Says what the last router goes on with itself.
    pub(super) fn begin(
        &self,
        held: Held,
        table: SessionTable,
        maps_kept_before: Vec<String>,
    ) -> Elsewhere {
        self.keep_maps(maps_kept_before);
        let table = Arc::clone(self.table.get_or_init(|| Arc::new(table)));
        // Without the kernel path no session goes on; those that the last router has left are then
        // let go of, one by one.
        if !self.door.data_path.kept_maps().is_empty() || !held.slots.is_empty() {
            self.door.sessions.keeping.begin(&self.kept, &table);
        }
        let resumed = held.slots.iter().map(|(slot, _)| *slot);
        let elsewhere = Elsewhere::find(&self.door, &self.directories, &table, resumed);
        // One that is just ending is out of the maps before its record is: its place looks free.
        self.door.data_path.reserve(elsewhere.places());
        self.resume(held, &table, elsewhere.places());
        elsewhere
    }

    /// Goes on with what the last router has left, and ends what cannot go on.
    fn resume(&self, held: Held, table: &SessionTable, mut taken: HashSet<u32>) {
        let (mut resumed, mut lost) = (0_usize, 0_usize);
        for (slot, descriptors) in held.slots {
            match self.resume_one(slot, descriptors, table) {
                Ok(()) => {
                    tracing::debug!(slot = slot.number(), "a session is gone on with");
                    taken.insert(slot.number());
                    resumed += 1;
                }
                Err(why) => {
                    tracing::warn!(slot = slot.number(), why, "a session is not taken over");
                    self.door.sessions.keeping.discard(slot.number());
                    lost += 1;
                }
            }
        }
        let cleared = self.door.data_path.clear_others(&taken);
        if resumed + lost + cleared > 0 {
            tracing::info!(resumed, lost, cleared, "took over from the last router");
        }
    }

    fn resume_one(
        &self,
        slot: Slot,
        descriptors: SlotDescriptors<OwnedFd>,
        table: &SessionTable,
    ) -> Result<(), &'static str> {
        let known = match table.read(slot) {
            Ok(Entry::Session(record, totals)) => parse(*record, totals),
            Ok(Entry::Empty | Entry::Invalid) | Err(_) => Err("nothing is known of it"),
        };
        let sockets = (descriptors.client, descriptors.backend, descriptors.aside);
        let (client, backend, aside) = match sockets {
            (Some(client), Some(backend), Some(aside)) => (client, backend, aside),
            (client, backend, _) => {
                end(client.iter().chain(&backend));
                return Err("not all of its sockets were kept");
            }
        };
        let known = match known {
            Ok(known) => known,
            Err(why) => {
                end([&client, &backend]);
                return Err(why);
            }
        };
        let orphan = self.orphan(slot, known, client, backend, aside);
        self.door.data_path.resume(orphan).map_err(|orphan| {
            end([&orphan.client]);
            end([&orphan.backend]);
            "the kernel path does not work any more"
        })
    }

    fn orphan(
        &self,
        slot: Slot,
        known: Known,
        client: OwnedFd,
        backend: OwnedFd,
        aside: OwnedFd,
    ) -> Orphan {
        let Known {
            id,
            identity,
            meter,
            backend_process_id,
            key,
        } = known;
        let issuer = Issuer {
            tenant: identity.tenant.clone(),
            socket_directory: self.directories.socket_directory(&identity.tenant),
        };
        // Without the registry there are no settings; then nothing is bounded that was.
        let settings = self.door.routes.settings(&identity.tenant);
        let idle_timeout = settings
            .ok()
            .and_then(|settings| settings.idle_session_timeout);
        let mut lease = self.door.sessions.resume(id, identity, meter, idle_timeout);
        let session = Arc::clone(lease.session());
        session
            .backend_pid
            .store(u64::from(backend_process_id), Relaxed);
        if let Some(key) = key {
            let cancels = &self.door.cancels;
            lease.learn_key(cancels.register(backend_process_id, key, issuer));
        }
        Orphan {
            place: slot.number(),
            client: TcpStream::from(client),
            backend: UnixStream::from(backend),
            aside: UnixDatagram::from(aside),
            meter: Arc::clone(&session.meter),
            lease: lease.hand_over(Arc::clone(&self.door.data_path)),
        }
    }

    /// Keeps the maps, without which no session goes on, instead of those that were kept before.
    fn keep_maps(&self, kept_before: Vec<String>) {
        let Kept::By(store) = &self.kept else {
            return;
        };
        let maps = self.door.data_path.kept_maps();
        let is_stale = |name: &String| maps.iter().all(|(of_now, _)| of_now != name);
        let stale: Vec<String> = kept_before.into_iter().filter(is_stale).collect();
        for (name, map) in maps {
            let put = GlobalName::new(&*name).map(|name| store.put_global(&name, map));
            if let Some(Err(error)) = put {
                tracing::warn!(%error, name, "sessions end with this process: a map is not kept");
            }
        }
        tracing::debug!("the maps are kept");
        // Those of a router that left no session, or none that could be gone on with.
        for name in stale.into_iter().filter_map(GlobalName::new) {
            if let Err(error) = store.drop_global(&name) {
                tracing::warn!(%error, name = name.as_str(), "a map of the last router stays kept");
            }
        }
    }
}

impl Outliving for KernelSessions {
    fn resupply(&self) {
        self.door.data_path.keep_again();
    }

    fn release(&self) -> bool {
        let keeping = &self.door.sessions.keeping;
        if let (None, Some(table)) = (keeping.place(), self.table.get()) {
            // No session goes on alone here, but the other router is to know of those that stay.
            keeping.begin(&self.kept, table);
        }
        let released = self.door.data_path.release();
        keeping.remain(&self.door);
        released
    }

    fn released(&self) {
        self.door.data_path.released();
    }

    fn take_back(&self) {
        self.door.sessions.keeping.remain_no_more();
        self.door.data_path.take_back();
    }
}

/// What a record says, parsed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: u64,
    pub(super) identity: Identity,
    pub(super) meter: Meter,
    pub(super) backend_process_id: u32,
    pub(super) key: Option<CancelKey>,
}

pub(super) fn parse(record: Record, totals: Option<Totals>) -> Result<Known, &'static str> {
    let totals = totals.unwrap_or_default();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let age = now.saturating_sub(Duration::from_micros(record.begun_microseconds));
    Ok(Known {
        id: record.session,
        identity: Identity {
            tenant: TenantId::parse(&record.tenant).map_err(|_| "its tenant has no valid id")?,
            user: Some(record.user),
            database: Some(record.database),
            client: record.client.ok_or("its client is not known")?,
        },
        meter: Meter::resumed(age, totals.to_backend, totals.to_client),
        backend_process_id: record.backend_process_id,
        key: CancelKey::new(&record.cancel_key).ok(),
    })
}

/// Closing alone would not do: the keeper has the sockets open too.
fn end<'a, D: std::os::fd::AsFd + 'a>(sockets: impl IntoIterator<Item = &'a D>) {
    for socket in sockets {
        // It may have ended by itself.
        drop(SockRef::from(socket).shutdown(Shutdown::Both));
    }
}
