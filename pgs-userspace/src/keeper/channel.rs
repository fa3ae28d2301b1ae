//! Messages with descriptors over a `SOCK_SEQPACKET` socket.

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::ReturnFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::recvmsg;
use rustix::net::sendmsg;

use super::message::Message;
use crate::config::limits::KEEPER_MESSAGE_BYTES_MAX;
use crate::config::limits::KEEPER_MESSAGE_DESCRIPTORS_MAX;

/// Room for the largest set of descriptors.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(KEEPER_MESSAGE_DESCRIPTORS_MAX));

/// What came.
#[derive(Debug)]
pub(super) enum Received {
    /// A message, and as many descriptors as it says.
    Message(Message, Vec<OwnedFd>),
    /// A message whose descriptors this process could not take: its limit on open files is reached.
    WithoutDescriptors(Message),
    /// The other side has closed.
    Closed,
}

/// Whether a send may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as the socket's time-out says.
    Wait,
    /// Not at all: `WouldBlock` where the other side's queue is full.
    None,
}

/// Sends one message, wholly or not at all.
pub(super) fn send(
    socket: impl AsFd,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
    patience: Patience,
) -> io::Result<()> {
    debug_assert_eq!(message.descriptors(), descriptors.len());
    let bytes = message.encode();
    send_bytes(socket, &bytes, descriptors, patience)
}

/// The same for any bytes.
pub(super) fn send_bytes(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    patience: Patience,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let rights = SendAncillaryMessage::ScmRights(descriptors);
    if !descriptors.is_empty() && !control.push(rights) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let flags = match patience {
        Patience::Wait => SendFlags::NOSIGNAL,
        Patience::None => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    };
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message; waits as long as the socket's time-out says, `WouldBlock` beyond.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Received> {
    let mut bytes = [0; KEEPER_MESSAGE_BYTES_MAX];
    let (length, descriptors, flags) = receive_bytes(socket, &mut bytes)?;
    // A packet of no bytes is no message of ours either.
    if length == 0 {
        return Ok(Received::Closed);
    }
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if flags.contains(ReturnFlags::TRUNC) {
        return Err(invalid("a message that is too long".to_owned()));
    }
    let message = Message::decode(&bytes[..length]).map_err(|error| invalid(error.to_string()))?;
    if flags.contains(ReturnFlags::CTRUNC) {
        return Ok(Received::WithoutDescriptors(message));
    }
    if descriptors.len() != message.descriptors() {
        let why = format!("{} descriptors with {message:?}", descriptors.len());
        return Err(invalid(why));
    }
    Ok(Received::Message(message, descriptors))
}

/// The same for any bytes.
pub(super) fn receive_bytes(
    socket: impl AsFd,
    bytes: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>, ReturnFlags)> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors, received.flags))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::AddressFamily;
    use nix::sys::socket::SockFlag;
    use nix::sys::socket::SockType;
    use nix::sys::socket::socketpair;
    use nix::sys::stat::fstat;

    use super::*;
    use crate::keeper::message::PartMask;
    use crate::keeper::store::Slot;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
    }

    #[test]
    fn the_largest_message_arrives_with_the_same_files_in_the_same_order() {
        let (here, there) = pair();
        let mask = PartMask::new([true; 3]).unwrap();
        let slots: Vec<_> = (0..80).map(|one| (Slot::new(one).unwrap(), mask)).collect();
        let files: Vec<OwnedFd> = (0..120)
            .flat_map(|_| <[UnixStream; 2]>::from(UnixStream::pair().unwrap()))
            .map(OwnedFd::from)
            .collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let message = Message::Slots(slots);
        send(&here, &message, &borrowed, Patience::None).unwrap();
        let Received::Message(received, descriptors) = receive(&there).unwrap() else {
            panic!("no message");
        };
        assert_eq!(received, message);
        let inode = |file: &OwnedFd| fstat(file).unwrap().st_ino;
        let sent: Vec<_> = files.iter().map(inode).collect();
        assert_eq!(descriptors.iter().map(inode).collect::<Vec<_>>(), sent);
    }

    #[test]
    fn the_end_of_the_other_side_is_told_apart() {
        let (here, there) = pair();
        drop(here);
        assert!(matches!(receive(&there).unwrap(), Received::Closed));
    }

    #[test]
    fn a_message_with_too_few_descriptors_is_an_error() {
        let (here, there) = pair();
        let mask = PartMask::new([true, true, false]).unwrap();
        let bytes = Message::Slots(vec![(Slot::new(1).unwrap(), mask)]).encode();
        send_bytes(&here, &bytes, &[here.as_fd()], Patience::None).unwrap();
        let error = receive(&there).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
