//! The kernel path: the verdict program and its maps. Only here is aya named.
//!
//! What it cannot do: see a message's end, inject bytes, or carry an encrypted session.

mod enrol;
mod flows;
#[cfg(feature = "ebpf-log")]
mod log;
mod peer;

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
use pgs_common::flow;

pub(super) use enrol::Enrolment;
pub(super) use enrol::Refused;
pub(super) use flows::FlowTable;
use peer::PeerCookies;

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

/// The loaded program; as long as it lives, enrolled sockets are redirected.
pub(super) struct KernelPath {
    /// Holds the program and its attachment.
    _program: Ebpf,
    maps: MapDescriptors,
    flows: Arc<FlowTable>,
}

struct MapDescriptors {
    slots: OwnedFd,
    sources: OwnedFd,
    targets: OwnedFd,
}

impl std::fmt::Debug for KernelPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KernelPath").finish_non_exhaustive()
    }
}

impl KernelPath {
    /// Loads the program, makes the maps, attaches.
    pub(super) fn load() -> Result<Self, KernelPathError> {
        let object = match std::env::var(OBJECT_VARIABLE) {
            Ok(path) => {
                std::fs::read(&path).map_err(|error| KernelPathError::Object { path, error })?
            }
            Err(_) => EMBEDDED_OBJECT.to_vec(),
        };
        let mut program = EbpfLoader::new().load(&object)?;
        #[cfg(feature = "ebpf-log")]
        log::follow(&mut program);
        let sources = descriptor(&mut program, flow::SOURCES_MAP)?;
        let targets = descriptor(&mut program, flow::TARGETS_MAP)?;
        let slots = descriptor(&mut program, flow::SLOTS_MAP)?;
        let flows = descriptor(&mut program, flow::FLOWS_MAP)?;
        let flows = Arc::new(FlowTable::map(flows.as_fd())?);

        let attach_to: SockHash<_, u64> = map_of(&sources, Map::SockHash)?.try_into()?;
        let verdict: &mut SkSkb = program
            .program_mut(flow::VERDICT_PROGRAM)
            .ok_or(KernelPathError::Missing(flow::VERDICT_PROGRAM))?
            .try_into()?;
        verdict.load()?;
        verdict.attach(
            &attach_to
                .fd()
                .try_clone()
                .map_err(|error| KernelPathError::System { call: "dup", error })?,
        )?;
        let maps = MapDescriptors {
            slots,
            sources,
            targets,
        };
        Ok(Self {
            _program: program,
            maps,
            flows,
        })
    }

    /// What the flows count.
    pub(super) fn flows(&self) -> &Arc<FlowTable> {
        &self.flows
    }

    /// A thread's own access to the maps, by which it shares no lock. Of the slots it gets `part`
    /// of `parts`.
    pub(super) fn access(&self, part: u32, parts: u32) -> Result<KernelAccess, KernelPathError> {
        assert!(part < parts, "part {part} of {parts}");
        let share = flow::FLOW_SLOTS / parts;
        let free = (part * share..(part + 1) * share).collect();
        Ok(KernelAccess {
            slots: map_of(&self.maps.slots, Map::HashMap)?.try_into()?,
            sources: map_of(&self.maps.sources, Map::SockHash)?.try_into()?,
            targets: map_of(&self.maps.targets, Map::SockHash)?.try_into()?,
            flows: Arc::clone(&self.flows),
            free,
            peers: PeerCookies::open().map_err(|error| KernelPathError::System {
                call: "socket(AF_NETLINK, NETLINK_SOCK_DIAG)",
                error,
            })?,
        })
    }
}

/// One thread's access to the maps.
pub(super) struct KernelAccess {
    slots: HashMap<MapData, u64, u32>,
    sources: SockHash<MapData, u64>,
    targets: SockHash<MapData, u64>,
    flows: Arc<FlowTable>,
    /// First in, first out: a slot rests as long as possible before it is used again.
    free: std::collections::VecDeque<u32>,
    peers: PeerCookies,
}

impl std::fmt::Debug for KernelAccess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KernelAccess")
            .field("free", &self.free.len())
            .finish()
    }
}

fn descriptor(program: &mut Ebpf, name: &'static str) -> Result<OwnedFd, KernelPathError> {
    let map = program.map(name).ok_or(KernelPathError::Missing(name))?;
    let (Map::Array(data) | Map::HashMap(data) | Map::SockHash(data)) = map else {
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
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text += &format!(": {inner_text}");
        }
        cause = inner.source();
    }
    text
}
