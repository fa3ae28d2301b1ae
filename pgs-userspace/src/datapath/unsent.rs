//! What a socket has been given and its peer has not taken yet.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd as _;

nix::ioctl_read_bad!(
    /// `SIOCOUTQ`.
    ioctl_siocoutq,
    libc::TIOCOUTQ,
    libc::c_int
);

/// Bytes that a TCP peer has not acknowledged; for a Unix socket, memory of what its peer has not
/// read.
pub(crate) fn unsent(socket: impl AsFd) -> io::Result<u64> {
    let mut count = 0;
    // SAFETY: the ioctl writes one int.
    #[expect(unsafe_code, reason = "an ioctl")]
    unsafe {
        ioctl_siocoutq(socket.as_fd().as_raw_fd(), &raw mut count)?;
    }
    Ok(u64::try_from(count).unwrap_or(0))
}
