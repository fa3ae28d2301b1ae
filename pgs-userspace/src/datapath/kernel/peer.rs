//! The cookie of an AF_UNIX socket's peer, asked of the kernel by `sock_diag`.
//!
//! The verdict program sees this cookie and not that of the router's own end: on an AF_UNIX
//! socket the buffer's owner is the sender.

use std::io;
use std::io::Read as _;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

use crate::config::limits::SOCK_DIAG_DEADLINE;
use crate::config::limits::SOCK_DIAG_STALE_ANSWERS_MAX;
use crate::datapath::socket::cookie;

/// `NETLINK_SOCK_DIAG`, `include/uapi/linux/netlink.h`.
const NETLINK_SOCK_DIAG: i32 = 4;
/// `SOCK_DIAG_BY_FAMILY`, `include/uapi/linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` and `NLMSG_ERROR`, `include/uapi/linux/netlink.h`.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// `UDIAG_SHOW_PEER` and `UNIX_DIAG_PEER`, `include/uapi/linux/unix_diag.h`.
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
/// `struct nlmsghdr`, and behind it `struct unix_diag_req` or `struct unix_diag_msg`.
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 24;
const MESSAGE_BYTES: usize = HEADER_BYTES + 16;
/// `INET_DIAG_NOCOOKIE`: the asker does not know the cookie.
const NO_COOKIE: u32 = u32::MAX;

/// Asks for cookies of peers.
#[derive(Debug)]
pub(super) struct PeerCookies {
    netlink: Socket,
    /// Of the last question. Its answer has the same.
    sequence: u32,
}

impl PeerCookies {
    /// Opens the netlink socket; needs no privilege.
    pub(super) fn open() -> io::Result<Self> {
        let protocol = Some(Protocol::from(NETLINK_SOCK_DIAG));
        let netlink = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, protocol)?;
        netlink.set_read_timeout(Some(SOCK_DIAG_DEADLINE))?;
        Ok(Self {
            netlink,
            sequence: 0,
        })
    }

    /// Cookie of the socket at the other end of `socket`.
    pub(super) fn of(&mut self, socket: impl AsFd) -> io::Result<u64> {
        let inode = fstat(socket.as_fd())?.st_ino;
        let inode = u32::try_from(inode).map_err(|_| io::Error::other("inode above 32 bits"))?;
        let own = self.ask(inode)?;
        let peer = own
            .peer
            .ok_or_else(|| io::Error::other("the socket has no peer"))?;
        let peer = self.ask(peer)?;
        // Inodes of sockets come from a 32-bit counter, and two may have the same one. A cookie is
        // never anybody else's, and a peer's peer is oneself.
        if own.cookie == cookie(&socket)? && peer.peer == Some(inode) {
            Ok(peer.cookie)
        } else {
            Err(io::Error::other(
                "sock_diag answered for another socket of the same inode",
            ))
        }
    }

    fn ask(&mut self, inode: u32) -> io::Result<Answer> {
        self.sequence = self.sequence.wrapping_add(1);
        self.netlink.send(&request(inode, self.sequence))?;
        let mut buffer = [0u8; 512];
        for _ in 0..SOCK_DIAG_STALE_ANSWERS_MAX {
            let length = self.netlink.read(&mut buffer)?;
            let bytes = &buffer[..length];
            // What came too late for an earlier question says nothing of this one.
            if u32::from_ne_bytes(field(bytes, 8)?) != self.sequence {
                continue;
            }
            let answer = parse(bytes)?;
            return match answer.inode == inode {
                true => Ok(answer),
                false => Err(io::Error::other("sock_diag answered for another socket")),
            };
        }
        Err(io::Error::other("sock_diag answered to other questions"))
    }
}

fn request(inode: u32, sequence: u32) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0u8; REQUEST_BYTES];
    bytes[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[HEADER_BYTES] = libc::AF_UNIX as u8;
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes[24..28].copy_from_slice(&inode.to_ne_bytes());
    bytes[28..32].copy_from_slice(&UDIAG_SHOW_PEER.to_ne_bytes());
    bytes[32..36].copy_from_slice(&NO_COOKIE.to_ne_bytes());
    bytes[36..40].copy_from_slice(&NO_COOKIE.to_ne_bytes());
    bytes
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    inode: u32,
    cookie: u64,
    peer: Option<u32>,
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let kind = u16::from_ne_bytes(field(bytes, 4)?);
    if kind == NLMSG_ERROR {
        let code = i32::from_ne_bytes(field(bytes, HEADER_BYTES)?);
        return Err(io::Error::from_raw_os_error(-code));
    }
    if kind != SOCK_DIAG_BY_FAMILY {
        return Err(io::Error::other(format!(
            "sock_diag answered with message type {kind}"
        )));
    }
    let inode = u32::from_ne_bytes(field(bytes, HEADER_BYTES + 4)?);
    // Two native 32-bit words, the low one first.
    let low = u32::from_ne_bytes(field(bytes, HEADER_BYTES + 8)?);
    let high = u32::from_ne_bytes(field(bytes, HEADER_BYTES + 12)?);
    let cookie = u64::from(high) << 32 | u64::from(low);
    Ok(Answer {
        inode,
        cookie,
        peer: peer_attribute(bytes)?,
    })
}

fn peer_attribute(bytes: &[u8]) -> io::Result<Option<u32>> {
    let mut at = MESSAGE_BYTES;
    while at + 4 <= bytes.len() {
        let length = usize::from(u16::from_ne_bytes(field(bytes, at)?));
        if u16::from_ne_bytes(field(bytes, at + 2)?) == UNIX_DIAG_PEER {
            return Ok(Some(u32::from_ne_bytes(field(bytes, at + 4)?)));
        }
        if length < 4 {
            break;
        }
        at += length.next_multiple_of(4);
    }
    Ok(None)
}

fn field<const BYTES: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; BYTES]> {
    bytes
        .get(at..at + BYTES)
        .and_then(|slice| slice.try_into().ok())
        .ok_or_else(|| io::Error::other("sock_diag answered with a truncated message"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_each_end_is_the_other() {
        let (left, right) = UnixStream::pair().unwrap();
        let mut peers = PeerCookies::open().unwrap();
        assert_eq!(peers.of(&left).unwrap(), cookie(&right).unwrap());
        assert_eq!(peers.of(&right).unwrap(), cookie(&left).unwrap());
    }

    #[test]
    fn an_answer_that_came_too_late_is_not_the_next_ones() {
        let (left, right) = UnixStream::pair().unwrap();
        let mut peers = PeerCookies::open().unwrap();
        for given_up in 0..3 {
            let (other, _far) = UnixStream::pair().unwrap();
            let inode = u32::try_from(fstat(&other).unwrap().st_ino).unwrap();
            // One of a socket, and one that there is no such socket.
            let late = request(inode * u32::from(given_up != 1), peers.sequence);
            peers.netlink.send(&late).unwrap();
        }
        assert_eq!(peers.of(&left).unwrap(), cookie(&right).unwrap());
        assert_eq!(peers.of(&right).unwrap(), cookie(&left).unwrap());
    }

    #[test]
    fn a_socket_without_a_peer_is_an_error() {
        let lonely = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        assert!(PeerCookies::open().unwrap().of(&lonely).is_err());
    }

    #[test]
    fn truncated_answers_are_errors() {
        let whole = request(7, 1);
        for length in 0..MESSAGE_BYTES {
            assert!(
                parse(&whole[..length.min(whole.len())]).is_err(),
                "{length}"
            );
        }
    }
}
