//! A session over TLS until it is over, one task each: decrypted and encrypted here, or passed on
//! as it is to the tenant's server, which ends the TLS itself.
//!
//! It never becomes a `Handover`: the kernel would redirect what must be encrypted first, and of
//! what is passed through nobody here knows when its login is over.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::Sleep;
use tokio::time::sleep;
use tokio::time::timeout;

use super::lease::SessionLease;
use super::secure_flow::Flow;
use super::secure_flow::FlowError;
use super::sessions::Session;
use super::strangers;
use super::unseen_login::UnseenLogin;
use crate::config::limits::CLOSE_LINGER;
use crate::datapath::handover::CloseReason;
use crate::datapath::handover::Lease as _;

/// Relays until either side ends the session or it is ended from outside. What was read from the
/// client before goes first. `unseen`: the login, where it comes only now and is not seen.
pub(super) fn begin<C, B>(
    client: C,
    backend: B,
    pending_to_backend: &[u8],
    lease: SessionLease,
    unseen: Option<UnseenLogin>,
) where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: BackendStream,
{
    let session = Arc::clone(lease.session());
    session.meter.begin_tls();
    let mut relay = Relay {
        client,
        backend: ResetIsEnd(backend),
        to_backend: Flow::with_pending(pending_to_backend),
        to_client: Flow::default(),
        first: None,
        linger: None,
        unseen,
        session: Arc::clone(&session),
    };
    tokio::spawn(async move {
        let reason = tokio::select! {
            reason = session.ended() => reason,
            reason = poll_fn(|context| relay.poll(context)) => reason,
        };
        // A client that is gone, or that does not read, need not hear that it is over.
        timeout(CLOSE_LINGER, relay.client.shutdown()).await.ok();
        let may_be_a_strangers = relay.unseen.is_some();
        drop(relay);
        if !may_be_a_strangers || strangers::log_has_room("unseen_session_closed") {
            Box::new(lease).closed(reason);
        }
    });
}

/// A session over TLS.
struct Relay<C, B> {
    client: C,
    backend: ResetIsEnd<B>,
    to_backend: Flow,
    to_client: Flow,
    /// Whose end came first.
    first: Option<CloseReason>,
    /// When to look whether a backend that has ended is gone altogether.
    linger: Option<Pin<Box<Sleep>>>,
    /// Until it is certain that the client is logged in.
    unseen: Option<UnseenLogin>,
    session: Arc<Session>,
}

impl<C: AsyncRead + AsyncWrite + Unpin, B: BackendStream> Relay<C, B> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<CloseReason> {
        self.unseen.take_if(|login| login.is_over(context));
        match self.poll_flows(context) {
            Ok(()) => {}
            Err(reason) => return Poll::Ready(reason),
        }
        if self.to_backend.is_ended() && self.to_client.is_ended() {
            let reason = self.first.take();
            return Poll::Ready(reason.unwrap_or(CloseReason::Client));
        }
        if self.to_client.is_ended() {
            return self.poll_linger(context);
        }
        Poll::Pending
    }

    /// Moves what can be moved, either way.
    fn poll_flows(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        let Self {
            client,
            backend,
            to_backend,
            to_client,
            session,
            ..
        } = self;
        let meter = &session.meter;
        let moved = |bytes| meter.add_to_client(bytes);
        if let Poll::Ready(Err(error)) = to_client.poll(context, backend, client, moved) {
            return Err(match error {
                FlowError::Source(error) => CloseReason::BackendFailed(error.to_string()),
                FlowError::Target(error) => match self.first.take() {
                    // It has said its last, and does not wait for the backend's.
                    Some(CloseReason::Client) => CloseReason::Client,
                    _ => CloseReason::ClientFailed(error.to_string()),
                },
            });
        }
        if to_client.is_ended() {
            self.first.get_or_insert(CloseReason::Backend);
        }
        loop {
            let moved = |bytes| meter.add_to_backend(bytes);
            match to_backend.poll(context, client, backend, moved) {
                Poll::Ready(Err(FlowError::Source(error))) => {
                    return Err(CloseReason::ClientFailed(error.to_string()));
                }
                // The backend is going: its last words are still to be delivered.
                Poll::Ready(Err(FlowError::Target(_))) => to_backend.discard(),
                Poll::Ready(Ok(())) | Poll::Pending => break,
            }
        }
        if to_backend.is_ended() {
            self.first.get_or_insert(CloseReason::Client);
        }
        Ok(())
    }

    /// The backend has said its last: if it is gone altogether, the client gets a moment to close
    /// by itself. Closing with unread input would reset the connection and could take the last
    /// message with it.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let linger = self
                .linger
                .get_or_insert_with(|| Box::pin(sleep(CLOSE_LINGER)));
            if linger.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if self.backend.0.is_gone() {
                return Poll::Ready(self.first.take().unwrap_or(CloseReason::Backend));
            }
            // It still listens, as who has only half closed.
            self.linger = None;
        }
    }
}

/// How a tenant's server is connected to.
pub(super) trait BackendStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether it has closed both ways. Asked once it has said its last.
    fn is_gone(&self) -> bool;
}

impl BackendStream for UnixStream {
    fn is_gone(&self) -> bool {
        let mut descriptors = [PollFd::new(self.as_fd(), PollFlags::empty())];
        match nix::poll::poll(&mut descriptors, PollTimeout::ZERO) {
            Ok(_) => descriptors[0]
                .revents()
                .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)),
            Err(_) => true,
        }
    }
}

impl BackendStream for TcpStream {
    /// TCP does not tell a half close from a whole one, and PostgreSQL makes no half ones.
    fn is_gone(&self) -> bool {
        true
    }
}

/// A stream whose reset is its end. A peer that closes while it has unread input resets: a backend
/// whose client went on talking, or a client that does not wait for the end of its TLS. All that it
/// had sent was read before.
pub(super) struct ResetIsEnd<S>(pub(super) S);

impl<S: AsyncRead + Unpin> AsyncRead for ResetIsEnd<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(context, into) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ResetIsEnd<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "secure_relay_tests.rs"]
mod tests;
