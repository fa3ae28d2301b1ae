//! The kernel path: the verdict programs and their maps. Only here is aya named.
//!
//! What it cannot do: see a message's end, inject bytes, or carry an encrypted session.

mod enrol;
mod entries;
mod flows;
mod kept;
mod layout;
#[cfg(feature = "ebpf-log")]
mod log;
mod mapping;
#[cfg(test)]
mod model;
mod notices;
mod peer;
mod place;
mod probe;
mod progress;
mod refused;
mod step;
mod withdrawal;

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use aya::Ebpf;
use aya::EbpfLoader;
use aya::maps::HashMap;
use aya::maps::Map;
use aya::maps::MapData;
use aya::maps::SockHash;
use aya::programs::SkSkb;
use nix::errno::Errno;
use pgs_common::flow;

pub(super) use enrol::Enrolment;
pub use entries::entries_of;
pub(super) use flows::FlowTable;
pub use flows::KernelBytes;
pub use kept::Inheritance;
use kept::ObjectDigest;
pub use kept::is_kept_map;
pub use kept::sha256;
pub(super) use notices::Notices;
use peer::PeerCookies;
pub(super) use place::Place;
pub(super) use place::Unreceived;
pub(super) use place::part_of;
use place::places_of;
use probe::Probe;
pub(super) use refused::Refused;
#[cfg(test)]
pub(super) use step::Step;
pub(super) use withdrawal::Pressure;
pub(super) use withdrawal::Standing;

use super::direction::Direction;
use crate::config::limits::VERDICT_BOUNDS;
use crate::config::limits::WORKERS_MAX;

/// Path of another object to load instead of the embedded one, for work on the program itself.
pub const OBJECT_VARIABLE: &str = "PGS_EBPF_OBJECT";

/// The eBPF object that this binary carries.
pub static EMBEDDED_OBJECT: &[u8] = {
    #[repr(C, align(8))]
    struct Aligned<Bytes: ?Sized>(Bytes);
    static OBJECT: &Aligned<[u8]> =
        &Aligned(*include_bytes!("../../../../pgs-ebpf/prebuilt/pgs.bpf.o"));
    &OBJECT.0
};

/// Why the kernel path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelPathError {
    /// The object named by [`OBJECT_VARIABLE`] cannot be read.
    #[error("cannot read the eBPF object `{path}`: {error}")]
    Object {
        /// As given.
        path: String,
        /// From `open` or `read`.
        error: io::Error,
    },
    /// The kernel refused the program or a map.
    #[error("cannot load the eBPF program: {0}")]
    Load(#[from] aya::EbpfError),
    /// The object has no such map or program.
    #[error("the eBPF object has no `{0}`")]
    Missing(&'static str),
    /// A map cannot be used.
    #[error("cannot use the eBPF map: {0}")]
    Map(#[from] aya::maps::MapError),
    /// The program cannot be loaded or attached.
    #[error("cannot load or attach the verdict program: {0}")]
    Program(#[from] aya::programs::ProgramError),
    /// A system call failed.
    #[error("{call}: {error}")]
    System {
        /// Which.
        call: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// What the loaded programs can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ways {
    /// Both directions.
    Both,
    /// Backend to client only, and why.
    ToClientOnly(String),
}

/// The maps with their programs attached; as long as they live, enrolled sockets are redirected.
/// The programs belong to the maps, and outlive this process where somebody else holds those.
#[derive(Debug)]
pub(super) struct KernelPath {
    maps: MapDescriptors,
    flows: Arc<FlowTable>,
    ways: Ways,
    /// The object of which the attached programs are.
    object: ObjectDigest,
}

/// One descriptor for each map.
#[derive(Debug)]
struct MapDescriptors {
    flows: OwnedFd,
    accounts: OwnedFd,
    indexes: OwnedFd,
    sources: OwnedFd,
    sockets: OwnedFd,
    probes: OwnedFd,
    notices: OwnedFd,
}

impl KernelPath {
    /// Loads the programs, makes the maps, attaches.
    pub(super) fn load() -> Result<Self, KernelPathError> {
        let object = match std::env::var(OBJECT_VARIABLE) {
            Ok(path) => {
                std::fs::read(&path).map_err(|error| KernelPathError::Object { path, error })?
            }
            Err(_) => EMBEDDED_OBJECT.to_vec(),
        };
        let layout = layout::of_running_kernel();
        let known = layout.as_ref().copied().unwrap_or_default();
        let mut program = EbpfLoader::new()
            .override_global(flow::LAYOUT_GLOBAL, &known, true)
            .override_global(flow::BOUNDS_GLOBAL, &VERDICT_BOUNDS, true)
            .load(&object)?;
        #[cfg(feature = "ebpf-log")]
        log::follow(&mut program);
        let maps = MapDescriptors::of(&program)?;
        let ways = attach(&mut program, &maps, layout)?;
        let flows = Arc::new(FlowTable::map(maps.flows.as_fd(), maps.accounts.as_fd())?);
        // Dropped, it would detach the programs also where another process holds the maps.
        std::mem::forget(program);
        let object = ObjectDigest::of(&object);
        Ok(Self {
            maps,
            flows,
            ways,
            object,
        })
    }

    /// What the flows count.
    pub(super) fn flows(&self) -> &Arc<FlowTable> {
        &self.flows
    }

    /// What the programs can do.
    pub(super) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// A thread's own access to the maps, by which it shares no lock. Of the places it gets `part`
    /// of `parts`.
    pub(super) fn access(&self, part: u32, parts: u32) -> Result<KernelAccess, KernelPathError> {
        assert!(part < parts, "part {part} of {parts}");
        let places = places_of(part, parts);
        let mut probes = map_of(&self.maps.probes, Map::SockHash)?.try_into()?;
        let both_ways = self.ways == Ways::Both;
        Ok(KernelAccess {
            indexes: map_of(&self.maps.indexes, Map::HashMap)?.try_into()?,
            sources: map_of(&self.maps.sources, Map::SockHash)?.try_into()?,
            sockets: map_of(&self.maps.sockets, Map::SockHash)?.try_into()?,
            flows: Arc::clone(&self.flows),
            // In maps of another router some are taken.
            free: places
                .map(Place)
                .filter(|place| self.flows.source(*place, Direction::ToClient) == 0)
                .collect(),
            probe: both_ways.then(|| Probe::open(&mut probes)).transpose()?,
            peers: PeerCookies::open().map_err(|error| KernelPathError::System {
                call: "socket(AF_NETLINK, NETLINK_SOCK_DIAG)",
                error,
            })?,
            #[cfg(test)]
            between_steps: None,
        })
    }

    /// The notices of flows whose bytes come to the router.
    pub(super) fn notices(&self) -> Result<Notices, KernelPathError> {
        Notices::open(map_of(&self.maps.notices, Map::RingBuf)?)
    }
}

// A router, the one that it takes over from, and one before that which still has sessions.
const _: () = assert!(3 * WORKERS_MAX <= flow::PROBES_MAX as usize);

/// Loads and attaches the verdict that this kernel takes.
fn attach(
    program: &mut Ebpf,
    maps: &MapDescriptors,
    layout: io::Result<flow::KernelLayout>,
) -> Result<Ways, KernelPathError> {
    let both = match layout {
        Ok(_) => attach_one(program, flow::PROBE_PROGRAM, &maps.probes)
            .and_then(|()| attach_one(program, flow::VERDICT_PROGRAM, &maps.sources))
            .map_err(|error| with_causes("the verdict that looks at its target", &error)),
        Err(error) => Err(format!("types of the running kernel: {error}")),
    };
    match both {
        Ok(()) => Ok(Ways::Both),
        Err(reason) => {
            attach_one(program, flow::ONE_WAY_PROGRAM, &maps.sources)?;
            Ok(Ways::ToClientOnly(reason))
        }
    }
}

fn attach_one(program: &mut Ebpf, name: &'static str, to: &OwnedFd) -> Result<(), KernelPathError> {
    let map: SockHash<_, u64> = map_of(to, Map::SockHash)?.try_into()?;
    let program: &mut SkSkb = program
        .program_mut(name)
        .ok_or(KernelPathError::Missing(name))?
        .try_into()?;
    program.load()?;
    let descriptor = map
        .fd()
        .try_clone()
        .map_err(|error| KernelPathError::System { call: "dup", error })?;
    program.attach(&descriptor)?;
    Ok(())
}

/// One thread's access to the maps.
pub(super) struct KernelAccess {
    indexes: HashMap<MapData, u64, u32>,
    sources: SockHash<MapData, u64>,
    sockets: SockHash<MapData, u64>,
    flows: Arc<FlowTable>,
    /// First in, first out: a place rests as long as possible before it is used again.
    free: std::collections::VecDeque<Place>,
    /// `None` where only one direction is redirected.
    probe: Option<Probe>,
    peers: PeerCookies,
    /// What a test does between two steps of an enrolment.
    #[cfg(test)]
    pub(super) between_steps: Option<step::Between>,
}

#[cfg(test)]
impl KernelAccess {
    /// Leaves it so many places of all it has, for a test to see them used again.
    pub(super) fn keep_places(&mut self, count: usize) {
        self.free.truncate(count);
    }
}

impl std::fmt::Debug for KernelAccess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KernelAccess")
            .field("free", &self.free.len())
            .finish()
    }
}

impl KernelAccess {
    /// Gives none of these places to a session before it was cleared.
    pub(super) fn reserve(&mut self, places: &HashSet<u32>) {
        self.free.retain(|place| !places.contains(&place.0));
    }

    /// What the flows count.
    pub(super) fn flows(&self) -> &Arc<FlowTable> {
        &self.flows
    }
}

impl MapDescriptors {
    fn of(program: &Ebpf) -> Result<Self, KernelPathError> {
        Ok(Self {
            flows: descriptor(program, flow::FLOWS_MAP)?,
            accounts: descriptor(program, flow::ACCOUNTS_MAP)?,
            indexes: descriptor(program, flow::INDEXES_MAP)?,
            sources: descriptor(program, flow::SOURCES_MAP)?,
            sockets: descriptor(program, flow::SOCKETS_MAP)?,
            probes: descriptor(program, flow::PROBES_MAP)?,
            notices: descriptor(program, flow::NOTICES_MAP)?,
        })
    }
}

fn descriptor(program: &Ebpf, name: &'static str) -> Result<OwnedFd, KernelPathError> {
    let map = program.map(name).ok_or(KernelPathError::Missing(name))?;
    let (Map::Array(data) | Map::HashMap(data) | Map::SockHash(data) | Map::RingBuf(data)) = map
    else {
        return Err(KernelPathError::Missing(name));
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| KernelPathError::System { call: "dup", error })
}

fn map_of(descriptor: &OwnedFd, kind: fn(MapData) -> Map) -> Result<Map, KernelPathError> {
    let descriptor = descriptor
        .try_clone()
        .map_err(|error| KernelPathError::System { call: "dup", error })?;
    Ok(kind(MapData::from_fd(descriptor)?))
}

/// What failed and why. The system's own word is the innermost cause, which aya does not repeat.
pub(super) fn with_causes(what: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{what}: {}", without_verifier_log(&error.to_string()));
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = without_verifier_log(&inner.to_string()).to_owned();
        if !text.ends_with(&inner_text) {
            text += &format!(": {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// Whether a capability is missing. The kernel says EPERM then; EACCES is the verifier's.
pub(super) fn is_refused_permission(error: &KernelPathError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = cause {
        let refused = inner
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.raw_os_error() == Some(Errno::EPERM as i32));
        if refused {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The verifier's log has hundreds of lines, of which only who changes the program reads any.
fn without_verifier_log(text: &str) -> &str {
    let (before, log) = text.split_once(". Verifier output").unwrap_or((text, ""));
    if !log.is_empty() {
        tracing::debug!(log, "what the verifier said");
    }
    before
}
