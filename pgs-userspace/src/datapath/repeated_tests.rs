//! A client's TCP that sends again what has arrived, together with what has not: each byte goes on
//! once.
//!
//! A socket in repair mode (`TCP_REPAIR`, for checkpointing) goes back in its own stream, which is
//! what a sender does whose acknowledgement is late and that cuts its segments anew.

use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockaddrIn;
use nix::sys::socket::bind;
use nix::sys::socket::connect;

use super::arrivals_tests::expect;
use super::arrivals_tests::hand_over;
use super::arrivals_tests::kernel;
use super::arrivals_tests::pattern;

/// `include/uapi/linux/tcp.h`.
const TCP_RECV_QUEUE: u32 = 1;
const TCP_SEND_QUEUE: u32 = 2;
const TCP_REPAIR_ON: i32 = 1;
const TCP_REPAIR_OFF_NO_PROBE: i32 = -1;
/// What is sent at once is one segment.
const SEGMENT_BYTES: u32 = 32_000;

/// A number, or `struct tcp_repair_window`.
fn set<T>(socket: &TcpStream, option: i32, value: &T) {
    // SAFETY: the kernel reads `value`, of the length that it is told.
    #[expect(unsafe_code, reason = "nix does not know these options")]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(result, 0, "option {option}: {error}");
}

fn get<T: Default>(socket: &TcpStream, option: i32) -> T {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which are numbers.
    #[expect(unsafe_code, reason = "nix does not know these options")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(result, 0, "option {option}: {error}");
    value
}

fn address(of: SocketAddr) -> SockaddrIn {
    match of {
        SocketAddr::V4(address) => SockaddrIn::from(address),
        SocketAddr::V6(_) => panic!("the stage is on 127.0.0.1"),
    }
}

/// The socket's next byte is the one that it sent so long ago.
fn go_back(client: &TcpStream, bytes: u32) {
    let local = address(client.local_addr().unwrap());
    let peer = address(client.peer_addr().unwrap());
    set(client, libc::TCP_REPAIR, &TCP_REPAIR_ON);
    let window: [u32; 5] = get(client, libc::TCP_REPAIR_WINDOW);
    let sequences = [TCP_SEND_QUEUE, TCP_RECV_QUEUE].map(|queue| {
        set(client, libc::TCP_REPAIR_QUEUE, &queue);
        (queue, get::<u32>(client, libc::TCP_QUEUE_SEQ))
    });
    disconnect(client);
    set(client, libc::TCP_REPAIR, &TCP_REPAIR_ON);
    bind(client.as_raw_fd(), &local).unwrap();
    for (queue, sequence) in sequences {
        set(client, libc::TCP_REPAIR_QUEUE, &queue);
        let back = if queue == TCP_SEND_QUEUE { bytes } else { 0 };
        set(client, libc::TCP_QUEUE_SEQ, &sequence.wrapping_sub(back));
    }
    set(client, libc::TCP_MAXSEG, &SEGMENT_BYTES);
    connect(client.as_raw_fd(), &peer).unwrap();
    set(client, libc::TCP_REPAIR_WINDOW, &window);
    set(client, libc::TCP_REPAIR, &TCP_REPAIR_OFF_NO_PROBE);
}

/// In repair mode the peer is told nothing of it.
fn disconnect(client: &TcpStream) {
    let nowhere = libc::sockaddr {
        sa_family: AddressFamily::Unspec as libc::sa_family_t,
        sa_data: [0; 14],
    };
    let length = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the kernel reads `nowhere`, of that length.
    #[expect(unsafe_code, reason = "nix has no address of no family")]
    let result = unsafe { libc::connect(client.as_raw_fd(), &raw const nowhere, length) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// A part of a buffer is taken off that fits into one call of the kernel's, and one that does not.
#[test]
fn what_a_client_sends_again_goes_on_once() {
    let Some(kernel) = kernel() else { return };
    for (again, fresh) in [(1, 1), (100, 300), (4_095, 10), (4_096, 10), (9_000, 5_000)] {
        let mut handed = hand_over(&kernel, b"", |_, _, _| {});
        handed.wait_for_kernel();
        let first = pattern(1, 10_000);
        handed.client.write_all(&first).unwrap();
        expect(&mut handed.backend, &first);
        go_back(&handed.client, again as u32);
        let next = pattern(2, fresh);
        let segment = [&first[first.len() - again..], &next].concat();
        handed.client.write_all(&segment).unwrap();
        expect(&mut handed.backend, &next);
        // Nothing came behind it, and both sides go on.
        handed.small_turns(&kernel);
    }
}
