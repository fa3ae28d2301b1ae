//! What the running kernel holds for a target: how many buffers wait, how much memory is taken;
//! and what it knows of a backend.
//!
//! Read at offsets from the kernel's own BTF, because no helper tells.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_map_lookup_elem;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::bpf_sk_release;
use aya_ebpf::helpers::bpf_skc_to_tcp_sock;
use aya_ebpf::helpers::bpf_skc_to_unix_sock;

use crate::maps::LAYOUT;
use crate::maps::SOCKETS;

/// Low bits of `sk_user_data` that are flags: `SK_USER_DATA_NOCOPY` and its companions of
/// `include/net/sock.h`.
const USER_DATA_FLAGS: u64 = 7;

/// `TASK_INTERRUPTIBLE` of `include/linux/sched.h`. A thread that makes a buffer may wait for
/// memory or a lock on the way, but never like this.
const TASK_INTERRUPTIBLE: u32 = 1;

/// What a socket holds.
pub(crate) struct Holding {
    /// Redirected buffers that the worker has yet to send.
    pub(crate) queued: u32,
    /// Memory of its send buffer that is taken, in bytes.
    pub(crate) taken_bytes: u32,
    /// Its send buffer, in bytes.
    pub(crate) send_buffer_bytes: u32,
}

/// What the socket of this key holds; `None` where there is none, or it cannot be read.
pub(crate) fn of_target(key: u64) -> Option<Holding> {
    with_socket(key, of_socket)
}

/// Whether the send buffer at the other end of the AF_UNIX socket of this key is full; `None` where
/// there is no such socket.
pub(crate) fn is_peer_full(key: u64) -> Option<bool> {
    with_socket(key, is_full)
}

#[inline(always)]
fn with_socket<T>(key: u64, look: fn(*mut c_void) -> Option<T>) -> Option<T> {
    // SAFETY: the map is a sockhash and the key is on the stack.
    let socket = unsafe {
        bpf_map_lookup_elem(
            (&raw const SOCKETS).cast_mut().cast(),
            (&raw const key).cast(),
        )
    };
    if socket.is_null() {
        return None;
    }
    let seen = look(socket);
    // SAFETY: the look-up took a reference.
    unsafe { bpf_sk_release(socket) };
    seen
}

#[inline(always)]
fn is_full(socket: *mut c_void) -> Option<bool> {
    let layout = LAYOUT.load();
    // SAFETY: the verifier knows the pointer as a socket.
    let unix = unsafe { bpf_skc_to_unix_sock(socket) };
    if unix.is_null() {
        return None;
    }
    let peer = number::<u64>(unix as u64, layout.unix_peer)?;
    // The kernel's own comparison, in `sock_alloc_send_pskb` of `net/core/sock.c`; the counter is a
    // reference count, and one reference is the socket's own.
    let allocated = number::<u32>(peer, layout.sock_write_allocated)?;
    Some(allocated > number(peer, layout.sock_send_buffer)?)
}

/// Whether a thread sleeps until something wakes it; `None` where that cannot be read.
pub(crate) fn is_asleep(task: u64) -> Option<bool> {
    if task == 0 {
        return None;
    }
    let state = number::<u32>(task, LAYOUT.load().task_state)?;
    Some(state & TASK_INTERRUPTIBLE != 0)
}

/// What a socket holds, given as the helpers and the context give it.
pub(crate) fn of_socket(socket: *mut c_void) -> Option<Holding> {
    let layout = LAYOUT.load();
    // `struct sock` is the first member of both.
    // SAFETY: the verifier knows the pointer as a socket.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket) };
    if !tcp.is_null() {
        return read(tcp as u64, layout.sock_write_queued);
    }
    // SAFETY: as above.
    let unix = unsafe { bpf_skc_to_unix_sock(socket) };
    if !unix.is_null() {
        return read(unix as u64, layout.sock_write_allocated);
    }
    None
}

/// TCP's sequence number of a buffer's first byte, given the buffer as the context points to it.
#[inline(always)]
pub(crate) fn sequence_of(buffer: *mut c_void) -> Option<u32> {
    number(buffer as u64, LAYOUT.load().buffer_sequence)
}

/// TCP's sequence number of the next byte that a socket's owner has not read.
#[inline(always)]
pub(crate) fn next_unread(socket: *mut c_void) -> Option<u32> {
    // SAFETY: the verifier knows the pointer as a socket.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket) };
    if tcp.is_null() {
        return None;
    }
    number(tcp as u64, LAYOUT.load().tcp_next_unread)
}

#[inline(always)]
fn read(sock: u64, taken: u32) -> Option<Holding> {
    let layout = LAYOUT.load();
    let psock = number::<u64>(sock, layout.sock_user_data)? & !USER_DATA_FLAGS;
    Some(Holding {
        queued: number(psock, layout.psock_queue_length)?,
        taken_bytes: number(sock, taken)?,
        send_buffer_bytes: number(sock, layout.sock_send_buffer)?,
    })
}

#[inline(always)]
fn number<T>(base: u64, offset: u32) -> Option<T> {
    let address = base + u64::from(offset);
    // SAFETY: the helper checks the address and fails where there is nothing.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
