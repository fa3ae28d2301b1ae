//! The table of flows, mapped into the router's memory: counters are read without a system call.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Release;

use nix::sys::mman::MapFlags;
use nix::sys::mman::ProtFlags;
use nix::sys::mman::mmap;
use nix::sys::mman::munmap;
use pgs_common::flow::FLOW_SLOTS;
use pgs_common::flow::Flow;
use pgs_common::flow::KERNEL;
use pgs_common::flow::RELAY;

use super::KernelPathError;

/// [`Flow`] as seen by two writers at once: the same layout, every field atomic.
#[repr(C, align(64))]
#[derive(Debug)]
struct SharedFlow {
    source: AtomicU64,
    target: AtomicU64,
    passed: AtomicU64,
    forwarded: AtomicU64,
    redirected: AtomicU64,
    mode: AtomicU32,
    request: AtomicU32,
    turns: AtomicU32,
    reserved: [AtomicU32; 3],
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<SharedFlow>() == size_of::<Flow>());
    assert!(offset_of!(SharedFlow, source) == offset_of!(Flow, source));
    assert!(offset_of!(SharedFlow, target) == offset_of!(Flow, target));
    assert!(offset_of!(SharedFlow, passed) == offset_of!(Flow, passed));
    assert!(offset_of!(SharedFlow, forwarded) == offset_of!(Flow, forwarded));
    assert!(offset_of!(SharedFlow, redirected) == offset_of!(Flow, redirected));
    assert!(offset_of!(SharedFlow, mode) == offset_of!(Flow, mode));
    assert!(offset_of!(SharedFlow, request) == offset_of!(Flow, request));
    assert!(offset_of!(SharedFlow, turns) == offset_of!(Flow, turns));
};

/// All flows; slots are given out by their owner, so that each has one writer here.
#[derive(Debug)]
pub(in crate::datapath) struct FlowTable {
    base: NonNull<SharedFlow>,
}

#[expect(unsafe_code, reason = "a shared mapping of atomics")]
// SAFETY: the mapping holds atomics only and lives as long as the value.
unsafe impl Send for FlowTable {}
#[expect(unsafe_code, reason = "a shared mapping of atomics")]
// SAFETY: as above.
unsafe impl Sync for FlowTable {}

const TABLE_BYTES: NonZeroUsize =
    NonZeroUsize::new(FLOW_SLOTS as usize * size_of::<Flow>()).expect("neither factor is zero");

impl FlowTable {
    /// Maps the array.
    pub(super) fn map(array: BorrowedFd<'_>) -> Result<Self, KernelPathError> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice.
        #[expect(unsafe_code, reason = "mmap")]
        let base = unsafe {
            mmap(
                None,
                TABLE_BYTES,
                protection,
                MapFlags::MAP_SHARED,
                array,
                0,
            )
        };
        let base = base.map_err(|errno| KernelPathError::System {
            call: "mmap of the flow table",
            error: errno.into(),
        })?;
        Ok(Self { base: base.cast() })
    }

    fn flow(&self, slot: u32) -> &SharedFlow {
        assert!(slot < FLOW_SLOTS, "slot {slot}");
        // SAFETY: within the mapping, page-aligned base, atomics only.
        #[expect(unsafe_code, reason = "the slot is within the mapping")]
        unsafe {
            self.base.add(slot as usize).as_ref()
        }
    }

    /// Makes a slot a fresh flow in mode [`RELAY`]. Call it only while no source leads to the slot.
    pub(super) fn begin(&self, slot: u32, source: u64, target: u64) {
        let flow = self.flow(slot);
        flow.passed.store(0, Release);
        flow.forwarded.store(0, Release);
        flow.redirected.store(0, Release);
        flow.mode.store(RELAY, Release);
        flow.request.store(RELAY, Release);
        flow.turns.store(0, Release);
        flow.target.store(target, Release);
        flow.source.store(source, Release);
    }

    /// From here on no verdict takes this slot's target.
    pub(super) fn end(&self, slot: u32) {
        self.flow(slot).source.store(0, Release);
    }

    /// Asks the verdict to redirect, from the next bytes on.
    pub(super) fn request_kernel(&self, slot: u32) {
        self.flow(slot).request.store(KERNEL, Release);
    }

    /// Says that so many of the passed bytes are written to the target.
    pub(super) fn publish_forwarded(&self, slot: u32, bytes: u64) {
        self.flow(slot).forwarded.store(bytes, Release);
    }

    /// Bytes that the verdict let pass.
    pub(super) fn passed(&self, slot: u32) -> u64 {
        self.flow(slot).passed.load(Acquire)
    }

    /// Bytes that the verdict redirected.
    pub(in crate::datapath) fn redirected(&self, slot: u32) -> u64 {
        self.flow(slot).redirected.load(Acquire)
    }

    /// Whether the verdict redirects now.
    pub(super) fn is_kernel(&self, slot: u32) -> bool {
        self.flow(slot).mode.load(Acquire) == KERNEL
    }
}

impl Drop for FlowTable {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, unmapped once, and no reference outlives `self`.
        #[expect(unsafe_code, reason = "munmap")]
        let result = unsafe { munmap(self.base.cast(), TABLE_BYTES.get()) };
        debug_assert!(result.is_ok(), "munmap of the flow table");
    }
}
