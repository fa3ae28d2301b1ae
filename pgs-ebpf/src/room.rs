//! What the running kernel holds for a target: how many buffers wait, how much memory is taken.
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
    let holding = of_socket(socket);
    // SAFETY: the look-up took a reference.
    unsafe { bpf_sk_release(socket) };
    holding
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
