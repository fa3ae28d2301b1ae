//! What is known of a live session's bytes, readable from any thread at any time.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use super::direction::Direction;
use super::kernel::FlowTable;
use super::kernel::KernelBytes;
use super::kernel::Place;

/// How a session's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Startup and authentication are still under way.
    Startup,
    /// The router reads and writes.
    Relay,
    /// The router decrypts and encrypts.
    Tls,
    /// The verdict program redirects.
    Kernel,
}

impl Path {
    /// From its number, `path as u8`.
    pub fn of_number(number: u8) -> Self {
        match number {
            value if value == Self::Kernel as u8 => Self::Kernel,
            value if value == Self::Tls as u8 => Self::Tls,
            value if value == Self::Relay as u8 => Self::Relay,
            _ => Self::Startup,
        }
    }

    /// As shown to people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Relay => "relay",
            Self::Tls => "tls",
            Self::Kernel => "kernel",
        }
    }
}

/// Not in the kernel's tables.
const NO_PLACE: u32 = u32::MAX;

/// Counters of one session, written by the thread that moves its bytes.
#[derive(Debug)]
pub struct Meter {
    begun: Instant,
    path: AtomicU8,
    reason: OnceLock<String>,
    relayed_to_backend: AtomicU64,
    relayed_to_client: AtomicU64,
    kernel_to_backend: AtomicU64,
    kernel_to_client: AtomicU64,
    place: AtomicU32,
    /// Where the router's own bytes are counted too, as long as there is a place: a router that is
    /// killed takes its memory with it.
    flows: OnceLock<Arc<FlowTable>>,
    withdrawals: AtomicU32,
    /// Milliseconds since `begun` at which the router last moved a byte.
    moved_at_milliseconds: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// Of a session that begins now.
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            path: AtomicU8::new(Path::Startup as u8),
            reason: OnceLock::new(),
            relayed_to_backend: AtomicU64::new(0),
            relayed_to_client: AtomicU64::new(0),
            kernel_to_backend: AtomicU64::new(0),
            kernel_to_client: AtomicU64::new(0),
            place: AtomicU32::new(NO_PLACE),
            flows: OnceLock::new(),
            withdrawals: AtomicU32::new(0),
            moved_at_milliseconds: AtomicU64::new(0),
        }
    }

    /// Of a session that began so long ago, under another router, which had relayed so many bytes.
    pub fn resumed(age: Duration, to_backend: u64, to_client: u64) -> Self {
        let mut meter = Self::new();
        meter.begun = meter.begun.checked_sub(age).unwrap_or(meter.begun);
        meter.relayed_to_backend = AtomicU64::new(to_backend);
        meter.relayed_to_client = AtomicU64::new(to_client);
        meter
    }

    /// Time since the connection was accepted.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Time since the router itself last moved a byte of this session; on the kernel path see
    /// [`DataPath::idle`](super::DataPath::idle).
    pub(super) fn router_idle(&self) -> Duration {
        let moved_at = Duration::from_millis(self.moved_at_milliseconds.load(Relaxed));
        self.begun.elapsed().saturating_sub(moved_at)
    }

    /// How the bytes travel now.
    pub fn path(&self) -> Path {
        Path::of_number(self.path.load(Relaxed))
    }

    /// Why the session is relayed although the kernel path was wanted.
    pub fn relay_reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// How far a session is that another router has.
    pub fn observe(&self, path: Path, to_backend: u64, to_client: u64) {
        self.path.store(path as u8, Relaxed);
        let before = self.relayed_to_backend.swap(to_backend, Relaxed);
        if self.relayed_to_client.swap(to_client, Relaxed) != to_client || before != to_backend {
            self.moved();
        }
    }

    /// Times that its backend has left the verdict.
    pub fn withdrawals(&self) -> u32 {
        self.withdrawals.load(Relaxed)
    }

    /// Bytes that the router wrote to the backend.
    pub fn relayed_to_backend(&self) -> u64 {
        self.relayed_to_backend.load(Relaxed)
    }

    /// Bytes that the router wrote to the client.
    pub fn relayed_to_client(&self) -> u64 {
        self.relayed_to_client.load(Relaxed)
    }

    /// Bytes that the verdict program redirected, as of the end of the kernel flows.
    pub(super) fn kernel_bytes(&self) -> KernelBytes {
        KernelBytes {
            to_backend: self.kernel_to_backend.load(Relaxed),
            to_client: self.kernel_to_client.load(Relaxed),
        }
    }

    /// Where its live flows are in the kernel's tables.
    pub(super) fn place(&self) -> Option<Place> {
        Some(self.place.load(Relaxed))
            .filter(|place| *place != NO_PLACE)
            .map(Place::from_number)
    }

    /// Counts bytes written to the backend by the router.
    pub fn add_to_backend(&self, bytes: usize) {
        self.add(Direction::ToBackend, bytes);
    }

    /// Counts bytes written to the client by the router.
    pub fn add_to_client(&self, bytes: usize) {
        self.add(Direction::ToClient, bytes);
    }

    fn add(&self, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        let before = self.relayed(direction).fetch_add(bytes, Relaxed);
        if let (Some(place), Some(flows)) = (self.place(), self.flows.get()) {
            flows.set_relayed(place, direction, before + bytes);
        }
        self.moved();
    }

    fn relayed(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToBackend => &self.relayed_to_backend,
            Direction::ToClient => &self.relayed_to_client,
        }
    }

    fn moved(&self) {
        let milliseconds = self.begun.elapsed().as_millis();
        let milliseconds = u64::try_from(milliseconds).unwrap_or(u64::MAX);
        self.moved_at_milliseconds.store(milliseconds, Relaxed);
    }

    /// It has flows here from now on, new ones or those of another router.
    pub(super) fn begin_kernel(&self, place: Place, flows: &Arc<FlowTable>) {
        for direction in Direction::BOTH {
            // The other one has moved more than what it wrote down of the session at its begin.
            let relayed = self.relayed(direction);
            relayed.fetch_max(flows.relayed(place, direction), Relaxed);
            flows.set_relayed(place, direction, relayed.load(Relaxed));
        }
        // It is asked for once.
        drop(self.flows.set(Arc::clone(flows)));
        self.place.store(place.number(), Relaxed);
        self.path.store(Path::Kernel as u8, Relaxed);
    }

    pub(super) fn add_withdrawal(&self) {
        self.withdrawals.fetch_add(1, Relaxed);
    }

    pub(super) fn end_kernel(&self, bytes: KernelBytes) {
        self.place.store(NO_PLACE, Relaxed);
        self.kernel_to_backend.fetch_add(bytes.to_backend, Relaxed);
        self.kernel_to_client.fetch_add(bytes.to_client, Relaxed);
    }

    /// The session is encrypted: the server module relays it, not the data path.
    pub fn begin_tls(&self) {
        self.path.store(Path::Tls as u8, Relaxed);
    }

    pub(super) fn begin_relay(&self, reason: Option<String>) {
        if let Some(reason) = reason {
            // The first reason is the one that decided; a later one changes nothing.
            drop(self.reason.set(reason));
        }
        self.path.store(Path::Relay as u8, Relaxed);
    }
}
