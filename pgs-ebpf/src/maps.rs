//! The maps of the programs; `pgs_common::flow` says what each is for.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::btf_maps::SockHash;
use aya_ebpf::macros::btf_map;
use pgs_common::flow::ACCOUNTS_MAX;
use pgs_common::flow::Account;
use pgs_common::flow::Bounds;
use pgs_common::flow::FLOWS_MAX;
use pgs_common::flow::Flow;
use pgs_common::flow::KernelLayout;
use pgs_common::flow::NOTICES_BYTES;
use pgs_common::flow::Notice;
use pgs_common::flow::PROBES_MAX;
use pgs_common::flow::SESSIONS_MAX;

const MAPPABLE: usize = BPF_F_MMAPABLE as usize;

/// A session's client, its backend and its private socket.
const SOCKETS_MAX: usize = 3 * SESSIONS_MAX as usize;

#[btf_map]
pub(crate) static FLOWS: Array<Flow, { FLOWS_MAX as usize }, MAPPABLE> = Array::new();

#[btf_map]
pub(crate) static ACCOUNTS: Array<Account, { ACCOUNTS_MAX as usize }, MAPPABLE> = Array::new();

#[btf_map]
pub(crate) static INDEXES: HashMap<u64, u32, { FLOWS_MAX as usize }> = HashMap::new();

#[btf_map]
pub(crate) static SOURCES: SockHash<u64, { FLOWS_MAX as usize }> = SockHash::new();

#[btf_map]
pub(crate) static SOCKETS: SockHash<u64, SOCKETS_MAX> = SockHash::new();

#[btf_map]
pub(crate) static PROBES: SockHash<u64, { PROBES_MAX as usize }> = SockHash::new();

#[btf_map]
pub(crate) static NOTICES: RingBuf<Notice, { NOTICES_BYTES as usize }> = RingBuf::new();

#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Global<KernelLayout> = Global::new(KernelLayout {
    sock_user_data: 0,
    sock_send_buffer: 0,
    sock_write_allocated: 0,
    sock_write_queued: 0,
    psock_queue_length: 0,
    unix_peer: 0,
    task_state: 0,
    tcp_next_unread: 0,
    buffer_sequence: 0,
});

#[unsafe(no_mangle)]
pub(crate) static BOUNDS: Global<Bounds> = Global::new(Bounds {
    turn_bytes: 0,
    room_bytes: 0,
    queue_buffers: 0,
    held_bytes: 0,
    held_buffer_bytes_min: 0,
    stuck_buffers: 0,
});
