//! Questions to a socket that neither the standard library nor nix asks.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::getsockopt;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;

/// Offset of `tcpi_bytes_acked` in `struct tcp_info`, `include/uapi/linux/tcp.h`.
const TCP_INFO_BYTES_ACKED_OFFSET: usize = 120;

/// `SK_MEMINFO_RMEM_ALLOC`, `SK_MEMINFO_RCVBUF`, `SK_MEMINFO_DROPS` and `SK_MEMINFO_VARS` of
/// `include/uapi/linux/sock_diag.h`.
const MEMORY_RECEIVE_TAKEN: usize = 0;
const MEMORY_RECEIVE_BUFFER: usize = 1;
const MEMORY_DROPS: usize = 8;
const MEMORY_FIGURES: usize = 9;

nix::ioctl_read_bad!(
    /// Bytes that wait to be read (`SIOCINQ`).
    ioctl_siocinq,
    libc::FIONREAD,
    libc::c_int
);
nix::ioctl_read_bad!(
    /// Bytes that wait to be sent or acknowledged (`SIOCOUTQ`).
    ioctl_siocoutq,
    libc::TIOCOUTQ,
    libc::c_int
);

/// The kernel's name for a socket; never used twice between two boots.
pub(super) fn cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`.
    #[expect(unsafe_code, reason = "nix has no SO_COOKIE")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// Whether no more can come to the receive buffer: the comparison is that of
/// `sk_psock_create_ingress_msg` in `net/core/skmsg.c`.
pub(super) fn is_receive_buffer_full(socket: impl AsFd) -> io::Result<bool> {
    let figures = memory_figures(socket)?;
    Ok(figures[MEMORY_RECEIVE_TAKEN] > figures[MEMORY_RECEIVE_BUFFER])
}

/// Memory in bytes of what has come to the receive buffer and was not read yet.
pub(super) fn receive_memory(socket: impl AsFd) -> io::Result<u32> {
    Ok(memory_figures(socket)?[MEMORY_RECEIVE_TAKEN])
}

/// Buffers that the kernel dropped on their way to the socket.
pub(super) fn dropped_buffers(socket: impl AsFd) -> io::Result<u32> {
    Ok(memory_figures(socket)?[MEMORY_DROPS])
}

fn memory_figures(socket: impl AsFd) -> io::Result<[u32; MEMORY_FIGURES]> {
    let mut figures = [0u32; MEMORY_FIGURES];
    let mut length = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `figures`.
    #[expect(unsafe_code, reason = "nix has no SO_MEMINFO")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            figures.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of_val(&figures) {
        return Err(io::Error::other("SO_MEMINFO: too few figures"));
    }
    Ok(figures)
}

/// Bytes that wait in the socket's own receive queue.
pub(super) fn unread_bytes(socket: impl AsFd) -> io::Result<u64> {
    let mut count = 0;
    // SAFETY: the ioctl writes one int.
    #[expect(unsafe_code, reason = "an ioctl")]
    unsafe {
        ioctl_siocinq(socket.as_fd().as_raw_fd(), &raw mut count)?;
    }
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Bytes that were given to the TCP socket so far: acknowledged plus queued, relative to an
/// unknown beginning. Acknowledged is read first, so that an acknowledgement in between can only
/// make the result too small, never too large.
pub(super) fn tcp_accepted_bytes(socket: impl AsFd) -> io::Result<u64> {
    let acknowledged = tcp_acknowledged_bytes(&socket)?;
    let mut queued = 0;
    // SAFETY: the ioctl writes one int.
    #[expect(unsafe_code, reason = "an ioctl")]
    unsafe {
        ioctl_siocoutq(socket.as_fd().as_raw_fd(), &raw mut queued)?;
    }
    Ok(acknowledged + u64::try_from(queued).unwrap_or(0))
}

/// Bytes that the peer acknowledged so far.
pub(super) fn tcp_acknowledged_bytes(socket: impl AsFd) -> io::Result<u64> {
    let mut info = [0u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`.
    #[expect(unsafe_code, reason = "libc's tcp_info ends before tcpi_bytes_acked")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let field = TCP_INFO_BYTES_ACKED_OFFSET..TCP_INFO_BYTES_ACKED_OFFSET + size_of::<u64>();
    let mut bytes = [0; size_of::<u64>()];
    bytes.copy_from_slice(&info[field]);
    Ok(u64::from_ne_bytes(bytes))
}

/// Bounds what waits in the socket to be sent, in bytes; the kernel counts its own overhead in and
/// doubles the figure. Beyond the system's maximum only with CAP_NET_ADMIN.
pub(super) fn set_send_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::SndBuf, &bytes)?;
    }
    Ok(())
}

/// Bounds what waits in the socket to be read, as [`set_send_buffer`] does for the other way.
pub(super) fn set_receive_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

/// Bounds what a TCP socket takes beyond what it could already send, in bytes.
pub(super) fn set_unsent_max(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)
}

/// Lets TCP choose the size of the send buffer again, from `start_bytes` on and up to `tcp_wmem`,
/// which a size set once prevents: `SO_BUF_LOCK` (Linux 5.14) takes the mark of that off, of both
/// buffers.
pub(super) fn unset_send_buffer(socket: &impl AsFd, start_bytes: usize) -> io::Result<()> {
    setsockopt(socket, sockopt::SndBuf, &start_bytes)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, 0)
}

/// Bytes from which on a socket is readable. Setting it has the kernel look at its queue again.
pub(super) fn set_receive_low_water(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

fn set_option(socket: &impl AsFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    // SAFETY: the kernel reads `value`, of the length that it is told.
    #[expect(unsafe_code, reason = "nix does not know these options")]
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The error that the socket has pending, if any.
pub(super) fn pending_error(socket: impl AsFd) -> io::Error {
    match getsockopt(&socket, sockopt::SocketError) {
        Ok(0) => io::Error::new(io::ErrorKind::ConnectionReset, "connection reset"),
        Ok(code) => io::Error::from_raw_os_error(code),
        Err(errno) => io::Error::from(errno),
    }
}
