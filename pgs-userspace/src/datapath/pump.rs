//! One direction of a relayed session: reads from the source, writes to the target, and tells the
//! target when the source has ended. Holds memory only while the target does not take the bytes.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::Shutdown;
use nix::sys::socket::recv;
use nix::sys::socket::send;
use nix::sys::socket::shutdown;

use crate::config::limits::ENROL_PENDING_BYTES_MAX;
use crate::config::limits::RELAY_READS_PER_EVENT_MAX;

/// One direction of a relayed session.
#[derive(Debug, Default)]
pub(super) struct Pump {
    /// Read and not yet written; at most one read's worth.
    pending: Vec<u8>,
    /// How much of `pending` is written.
    written: usize,
    state: State,
    /// Bytes read from the source so far.
    read_bytes: u64,
    /// Whether a reset of the source is its orderly end.
    reset_is_end: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Flowing,
    /// The source has ended; `pending` is still to be written, then the target is told.
    Ending,
    /// The target has been told.
    Ended,
    /// The target is gone: what the source sends is read and dropped, until it ends.
    Discarding,
}

/// What a pump waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// That the source has bytes.
    Readable,
    /// That the target takes bytes.
    Writable,
    /// Nothing: there may be more to read, but others come first.
    Turn,
    /// Nothing: the source has ended and the target knows.
    Ended,
}

/// Which side failed, and in which call.
#[derive(Debug)]
pub(super) enum PumpError {
    Source(io::Error),
    Target(io::Error),
}

impl Pump {
    /// From a client; bytes that were read before this pump began go first.
    pub(super) fn from_client(pending: &[u8]) -> Self {
        Self {
            pending: pending.to_vec(),
            ..Self::default()
        }
    }

    /// From a backend. An AF_UNIX peer that closes while it has unread input resets, which on a
    /// backend's side is no failure: all that it had sent can be read before.
    pub(super) fn from_backend(pending: &[u8]) -> Self {
        Self {
            pending: pending.to_vec(),
            reset_is_end: true,
            ..Self::default()
        }
    }

    /// Bytes read from the source so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Whether all that was read is written.
    pub(super) fn is_flushed(&self) -> bool {
        self.written == self.pending.len()
    }

    /// Whether the source has ended and the target knows.
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The source has ended, as was learnt elsewhere: the target is told when all is written.
    pub(super) fn finish(&mut self) {
        if self.state == State::Flowing {
            self.state = State::Ending;
        }
    }

    /// Whether what the source sends is dropped.
    pub(super) fn is_discarding(&self) -> bool {
        self.state == State::Discarding
    }

    /// Reads the source to its present end and keeps what it reads; false when that is too much, or
    /// the source has ended or failed. Nothing is lost then: the next run goes on from there.
    pub(super) fn hold_back(&mut self, source: &impl AsFd, scratch: &mut [u8]) -> bool {
        while self.pending.len() < ENROL_PENDING_BYTES_MAX {
            match receive(source, scratch) {
                Ok(0) => {
                    self.state = State::Ending;
                    return false;
                }
                Ok(read) => {
                    self.read_bytes += read as u64;
                    self.pending.extend_from_slice(&scratch[..read]);
                }
                Err(Errno::EAGAIN) => return true,
                // Reported again by the next read.
                Err(_) => return false,
            }
        }
        false
    }

    /// The target is gone: from here on the source is only read to its end.
    pub(super) fn discard(&mut self) {
        self.pending = Vec::new();
        self.written = 0;
        if self.state != State::Ended {
            self.state = State::Discarding;
        }
    }

    /// What this pump waits for when nothing has happened yet.
    pub(super) fn wait(&self) -> Wait {
        match self.state {
            State::Ended => Wait::Ended,
            _ if !self.is_flushed() => Wait::Writable,
            State::Ending => Wait::Turn,
            State::Flowing | State::Discarding => Wait::Readable,
        }
    }

    /// Moves bytes until a side makes it wait or its turn is over. `allowance` bounds what may be
    /// read; `moved` is told of every write.
    pub(super) fn run(
        &mut self,
        source: impl AsFd,
        target: impl AsFd,
        scratch: &mut [u8],
        mut allowance: u64,
        mut moved: impl FnMut(usize),
    ) -> Result<Wait, PumpError> {
        for _ in 0..RELAY_READS_PER_EVENT_MAX {
            if !self.flush(&target, &mut moved)? {
                return Ok(Wait::Writable);
            }
            if matches!(self.state, State::Ending | State::Ended) {
                return self.end(&target);
            }
            let most = usize::try_from(allowance)
                .unwrap_or(usize::MAX)
                .min(scratch.len());
            if most == 0 {
                return Ok(Wait::Readable);
            }
            let read = match receive(&source, &mut scratch[..most]) {
                // An AF_UNIX peer that closed with unread input resets; all that it had sent
                // before has been read by then.
                Ok(0) | Err(Errno::ECONNRESET) if self.state == State::Discarding => {
                    self.state = State::Ended;
                    return Ok(Wait::Ended);
                }
                Ok(0) => {
                    self.state = State::Ending;
                    continue;
                }
                Ok(read) => read,
                Err(Errno::EAGAIN) => return Ok(Wait::Readable),
                Err(Errno::ECONNRESET) if self.reset_is_end => {
                    self.state = State::Ending;
                    continue;
                }
                Err(errno) => return Err(PumpError::Source(named("recv", errno))),
            };
            allowance -= read as u64;
            self.read_bytes += read as u64;
            if self.state == State::Discarding {
                continue;
            }
            let sent = write(&target, &scratch[..read], &mut moved)?;
            if sent < read {
                self.pending.extend_from_slice(&scratch[sent..read]);
                return Ok(Wait::Writable);
            }
            // A short read means that the source is empty: the next event tells when it is not.
            if read < most {
                return Ok(Wait::Readable);
            }
        }
        Ok(Wait::Turn)
    }

    /// Writes what is pending; true when nothing is left.
    fn flush(
        &mut self,
        target: &impl AsFd,
        moved: &mut impl FnMut(usize),
    ) -> Result<bool, PumpError> {
        if self.is_flushed() {
            return Ok(true);
        }
        self.written += write(target, &self.pending[self.written..], moved)?;
        if self.is_flushed() {
            // Given back, not kept: thousands of sessions are idle at any time.
            self.pending = Vec::new();
            self.written = 0;
        }
        Ok(self.is_flushed())
    }

    fn end(&mut self, target: &impl AsFd) -> Result<Wait, PumpError> {
        if self.state == State::Ending {
            self.state = State::Ended;
            match shutdown(target.as_fd().as_raw_fd(), Shutdown::Write) {
                // The target is gone already: it cannot be told, and need not be.
                Ok(()) | Err(Errno::ENOTCONN) => {}
                Err(errno) => return Err(PumpError::Target(named("shutdown", errno))),
            }
        }
        Ok(Wait::Ended)
    }
}

/// Writes until all is written or the target takes no more; how much it took.
fn write(
    target: &impl AsFd,
    bytes: &[u8],
    moved: &mut impl FnMut(usize),
) -> Result<usize, PumpError> {
    let mut sent = 0;
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    while sent < bytes.len() {
        match send(target.as_fd().as_raw_fd(), &bytes[sent..], flags) {
            Ok(count) => {
                sent += count;
                moved(count);
            }
            Err(Errno::EAGAIN) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(PumpError::Target(named("send", errno))),
        }
    }
    Ok(sent)
}

fn receive(source: &impl AsFd, into: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(source.as_fd().as_raw_fd(), into, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn named(call: &str, errno: Errno) -> io::Error {
    io::Error::new(
        io::Error::from(errno).kind(),
        format!("{call}: {}", errno.desc()),
    )
}
