//! The maps of the verdict program; `pgs_common::flow` says what each is for.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::btf_maps::SockHash;
use aya_ebpf::macros::btf_map;
use pgs_common::flow::FLOW_SLOTS;
use pgs_common::flow::Flow;

#[btf_map]
pub(crate) static FLOWS: Array<Flow, { FLOW_SLOTS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

#[btf_map]
pub(crate) static SLOTS: HashMap<u64, u32, { FLOW_SLOTS as usize }> = HashMap::new();

#[btf_map]
pub(crate) static SOURCES: SockHash<u64, { FLOW_SLOTS as usize }> = SockHash::new();

#[btf_map]
pub(crate) static TARGETS: SockHash<u64, { FLOW_SLOTS as usize }> = SockHash::new();
