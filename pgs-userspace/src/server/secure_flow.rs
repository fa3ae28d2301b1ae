//! One direction of a session over TLS: from its source to its target, and the end of it.
//!
//! Like the data path's pump, but over streams that are polled: holds memory only while the target
//! does not take the bytes.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::config::limits::RELAY_READS_PER_EVENT_MAX;
use crate::config::limits::SECURE_RELAY_READ_BYTES;

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Read and not yet written; at most one read's worth, or what the login had held back.
    pending: Vec<u8>,
    /// How much of `pending` is written.
    written: usize,
    /// Written to the target, which may not have sent it yet.
    unsent: bool,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Flowing,
    /// The source has ended; the target is to be told when it has everything.
    Ending,
    /// The target has been told.
    Ended,
    /// The target is gone: what the source sends is read and dropped, until it ends.
    Discarding,
}

/// Which side failed.
#[derive(Debug)]
pub(super) enum FlowError {
    Source(io::Error),
    Target(io::Error),
}

impl Flow {
    /// Bytes that were read before go first.
    pub(super) fn with_pending(pending: &[u8]) -> Self {
        Self {
            pending: pending.to_vec(),
            ..Self::default()
        }
    }

    /// Whether the source has ended and the target knows.
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The target is gone: from here on the source is only read to its end.
    pub(super) fn discard(&mut self) {
        self.pending = Vec::new();
        self.written = 0;
        self.unsent = false;
        if self.state != State::Ended {
            self.state = State::Discarding;
        }
    }

    /// Moves bytes until a side makes it wait; ready when the direction has ended. `moved` is told
    /// of every write.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        target: &mut (impl AsyncWrite + Unpin),
        mut moved: impl FnMut(usize),
    ) -> Poll<Result<(), FlowError>> {
        for _ in 0..RELAY_READS_PER_EVENT_MAX {
            ready!(self.poll_send(context, target, &mut moved)).map_err(FlowError::Target)?;
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *target).poll_shutdown(context)).or_else(gone)?;
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Flowing | State::Discarding => {}
            }
            let mut scratch = [MaybeUninit::uninit(); SECURE_RELAY_READ_BYTES];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut *source).poll_read(context, &mut scratch))
                .map_err(FlowError::Source)?;
            let read = scratch.filled();
            match (self.state, read.is_empty()) {
                (State::Discarding, true) => self.state = State::Ended,
                (State::Discarding, false) => {}
                (_, true) => self.state = State::Ending,
                (_, false) => {
                    let sent = self
                        .write(context, target, read, &mut moved)
                        .map_err(FlowError::Target)?;
                    self.pending.extend_from_slice(&read[sent..]);
                }
            }
        }
        // There may be more to read, but others come first.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when the target has sent everything that was read.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        target: &mut (impl AsyncWrite + Unpin),
        moved: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let sent = self.write(context, target, &pending[self.written..], moved);
            self.pending = pending;
            self.written += sent?;
            if self.written < self.pending.len() {
                return Poll::Pending;
            }
            // Given back, not kept: thousands of sessions are idle at any time.
            self.pending = Vec::new();
            self.written = 0;
        }
        if self.unsent {
            ready!(Pin::new(target).poll_flush(context))?;
            self.unsent = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes until all is written or the target takes no more; how much it took.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        target: &mut (impl AsyncWrite + Unpin),
        bytes: &[u8],
        moved: &mut impl FnMut(usize),
    ) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match Pin::new(&mut *target).poll_write(context, &bytes[sent..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    sent += count;
                    self.unsent = true;
                    moved(count);
                }
                Poll::Pending => break,
            }
        }
        Ok(sent)
    }
}

/// The target is gone already: it cannot be told, and need not be.
fn gone(error: io::Error) -> Result<(), FlowError> {
    match error.kind() {
        io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(FlowError::Target(error)),
    }
}
