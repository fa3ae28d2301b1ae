//! A map's array in the router's memory.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman::MapFlags;
use nix::sys::mman::ProtFlags;
use nix::sys::mman::mmap;
use nix::sys::mman::munmap;

use super::KernelPathError;

/// Types whose values may be written by the kernel at any time: atomics and nothing else.
///
/// # Safety
///
/// `repr(C)`, every field an atomic integer, the layout that of the map's value.
#[expect(unsafe_code, reason = "a promise about layout")]
pub(super) unsafe trait Shared {}

/// An array of `Entry`, mapped as long as this lives.
#[derive(Debug)]
pub(super) struct Mapping<Entry> {
    base: NonNull<Entry>,
    count: u32,
    _entries: PhantomData<Entry>,
}

#[expect(unsafe_code, reason = "a shared mapping of atomics")]
// SAFETY: the mapping holds atomics only and lives as long as the value.
unsafe impl<Entry: Shared> Send for Mapping<Entry> {}
#[expect(unsafe_code, reason = "a shared mapping of atomics")]
// SAFETY: as above.
unsafe impl<Entry: Shared> Sync for Mapping<Entry> {}

impl<Entry: Shared> Mapping<Entry> {
    /// Maps the whole array behind a map's descriptor.
    pub(super) fn new(array: BorrowedFd<'_>, count: u32) -> Result<Self, KernelPathError> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let bytes = Self::bytes(count);
        // SAFETY: a fresh shared mapping at an address of the kernel's choice.
        #[expect(unsafe_code, reason = "mmap")]
        let base = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, array, 0) };
        let base = base.map_err(|errno| KernelPathError::System {
            call: "mmap of an eBPF array",
            error: errno.into(),
        })?;
        Ok(Self {
            base: base.cast(),
            count,
            _entries: PhantomData,
        })
    }

    /// The entry of this index, which must be within the array.
    pub(super) fn entry(&self, index: u32) -> &Entry {
        assert!(index < self.count, "entry {index} of {}", self.count);
        // SAFETY: within the mapping, page-aligned base, atomics only.
        #[expect(unsafe_code, reason = "the index is within the mapping")]
        unsafe {
            self.base.add(index as usize).as_ref()
        }
    }
}

impl<Entry> Mapping<Entry> {
    fn bytes(count: u32) -> NonZeroUsize {
        let bytes = count as usize * size_of::<Entry>();
        NonZeroUsize::new(bytes).expect("no map is empty, and no entry is")
    }
}

impl<Entry> Drop for Mapping<Entry> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, unmapped once, and no reference outlives `self`.
        #[expect(unsafe_code, reason = "munmap")]
        let result = unsafe { munmap(self.base.cast(), Self::bytes(self.count).get()) };
        debug_assert!(result.is_ok(), "munmap of an eBPF array");
    }
}
