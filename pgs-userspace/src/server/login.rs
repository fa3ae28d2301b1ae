//! The login: what client and backend say until the first ReadyForQuery, forwarded untouched.
//!
//! The router listens: for the key by which the backend can be cancelled, and for the end. What a
//! client sends without having been asked waits until the login has ended: at its first
//! ReadyForQuery the backend then has nothing to do and nothing to say, which is when the data path
//! can take its socket over.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::admission::Attempt;
use super::backend;
use super::cancel::Issuer;
use super::cancel::Registered;
use super::client::ClientStream;
use super::connection::FrontDoor;
use crate::config::limits::LOGIN_BUFFER_BYTES;
use crate::config::limits::LOGIN_CLIENT_BYTES_MAX;
use crate::protocol::backend::AuthenticationRequest;
use crate::protocol::backend::BackendError;
use crate::protocol::backend::BackendMessage;
use crate::protocol::backend::BackendScanner;
use crate::protocol::cancel::CancelKey;
use crate::protocol::message;
use crate::protocol::refusal::Refusal;
use crate::protocol::sqlstate::SqlState;
use crate::tenant::route::Route;

/// How a login ended.
#[derive(Debug)]
pub(super) enum LoginEnd {
    /// The backend waits for the first query.
    Ready,
    /// The backend refused; the client has been told by it.
    Refused(Option<SqlState>, String),
    /// The backend closed without a word.
    BackendGone,
    /// The client closed.
    ClientGone,
    /// What the backend said makes no sense.
    Nonsense(BackendError),
}

/// A login under way.
#[derive(Debug)]
pub(super) struct Login {
    scanner: BackendScanner,
    /// By what the backend can be cancelled.
    pub(super) key: Option<(u32, CancelKey)>,
    /// What the client has sent and the backend has not asked for.
    pub(super) held: BytesMut,
    /// The backend has asked, and the client has not answered yet.
    asked: bool,
    /// The client has answered, once at least.
    answered: bool,
    ready: bool,
    refused: Option<(Option<SqlState>, String)>,
    /// The client has proved itself.
    authenticated: bool,
    /// It is not there any more to hear what becomes of it.
    client_gone: bool,
    /// What is to be told when the backend says that the client is not who it claims to be: before
    /// the client itself is, or it could be back by then.
    attempt: Option<Attempt>,
    /// Bytes forwarded each way.
    pub(super) to_backend_bytes: usize,
    pub(super) to_client_bytes: usize,
}

impl Login {
    /// `held`: what came behind the startup packet.
    pub(super) fn new(held: BytesMut, attempt: Option<Attempt>) -> Self {
        Self {
            scanner: BackendScanner::new(),
            key: None,
            held,
            asked: false,
            answered: false,
            ready: false,
            refused: None,
            authenticated: false,
            client_gone: false,
            attempt,
            to_backend_bytes: 0,
            to_client_bytes: 0,
        }
    }

    /// Forwards until the login ends; while the client is judged, its own end does not end it. Not
    /// cancel safe; the caller's deadline ends the session. `learns` has the key before the client
    /// has.
    pub(super) async fn run(
        &mut self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        backend: &mut UnixStream,
        mut learns: impl FnMut(u32, CancelKey),
    ) -> io::Result<LoginEnd> {
        let mut from_backend = BytesMut::with_capacity(LOGIN_BUFFER_BYTES);
        let mut client_ended = false;
        // How it ended, once nothing more of it is to be forwarded.
        let mut gone: Option<io::Result<()>> = None;
        loop {
            if !self.is_judged()
                && let Some(how) = gone.take()
            {
                return self.client_closed(how);
            }
            self.client_gone = client_ended;
            self.answer(backend).await;
            let listen = !client_ended && self.held.len() < LOGIN_CLIENT_BYTES_MAX;
            tokio::select! {
                biased;
                read = backend.read_buf(&mut from_backend) => {
                    let read = match read {
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                        other => other?,
                    };
                    if read == 0 {
                        return Ok(self.backend_closed());
                    }
                    if let Err(error) = self.listen(&from_backend) {
                        return Ok(LoginEnd::Nonsense(error));
                    }
                    if let Some((process_id, key)) = self.key.take() {
                        learns(process_id, key);
                    }
                    match tell(client, &from_backend).await {
                        Ok(()) => self.to_client_bytes += read,
                        Err(error) => {
                            client_ended = true;
                            gone = gone.or(Some(Err(error)));
                        }
                    }
                    from_backend.clear();
                    if self.ready && gone.is_none() {
                        return Ok(LoginEnd::Ready);
                    }
                }
                read = client.read_buf(&mut self.held), if listen => {
                    client_ended = !matches!(read, Ok(1..));
                    match read {
                        Err(error) => gone = Some(Err(error)),
                        Ok(0) if self.held.is_empty() => gone = Some(Ok(())),
                        Ok(_) => {}
                    }
                }
            }
        }
    }

    /// Forwards one message of the client's, whatever it is, for each time the backend has asked.
    async fn answer(&mut self, backend: &mut UnixStream) {
        if !self.asked {
            return;
        }
        let Some(length) = message::first_message_bytes(&self.held, LOGIN_CLIENT_BYTES_MAX) else {
            return;
        };
        self.asked = false;
        self.answered = true;
        let answer = self.held.split_to(length);
        self.to_backend_bytes += length;
        // A backend that is gone has said why, or its closing will tell.
        backend.write_all(&answer).await.ok();
    }

    fn listen(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        let Self {
            scanner,
            key: learnt,
            asked,
            ready,
            refused,
            authenticated,
            attempt,
            ..
        } = self;
        scanner.feed(bytes, |event| match event.message {
            BackendMessage::BackendKeyData {
                process_id,
                key: Ok(key),
            } => {
                *learnt = Some((process_id, key));
            }
            BackendMessage::AuthenticationOk => *authenticated = true,
            BackendMessage::AuthenticationRequest(AuthenticationRequest::SaslFinal) => {}
            BackendMessage::AuthenticationRequest(_) => *asked = true,
            BackendMessage::ReadyForQuery { .. } => *ready = true,
            BackendMessage::Error { sqlstate, message } => {
                // Later ones say that something else is wrong.
                if !*authenticated && sqlstate.is_some_and(says_not_believed) {
                    attempt.take().into_iter().for_each(Attempt::failed);
                }
                *refused = Some((sqlstate, message));
            }
            _ => {}
        })
    }

    /// The backend has an answer of the client's, and has not said yet what it makes of it. It does
    /// so whether or not the client is there to hear it, and whoever tries out a password can learn
    /// elsewhere whether it was right.
    fn is_judged(&self) -> bool {
        self.answered && !self.asked && !self.authenticated && self.refused.is_none()
    }

    /// Who kept the other waiting when the deadline came. A client that has not waited for what the
    /// backend has not judged by then has failed: of the verdict nobody here would hear. One that
    /// is still there has a server that is slow, and has done nothing wrong.
    pub(super) fn late(&mut self) -> Refusal {
        if self.is_judged() && self.client_gone {
            self.attempt.take().into_iter().for_each(Attempt::failed);
        }
        if self.asked {
            Refusal::LoginDeadline
        } else {
            Refusal::TenantNotAnswering
        }
    }

    /// Whoever is refused need not wait for the backend's end.
    fn client_closed(&mut self, how: io::Result<()>) -> io::Result<LoginEnd> {
        match self.refused.take() {
            Some((sqlstate, message)) => Ok(LoginEnd::Refused(sqlstate, message)),
            None => how.map(|()| LoginEnd::ClientGone),
        }
    }

    fn backend_closed(&mut self) -> LoginEnd {
        match self.refused.take() {
            Some((sqlstate, message)) => LoginEnd::Refused(sqlstate, message),
            None => LoginEnd::BackendGone,
        }
    }
}

async fn tell(client: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    client.write_all(bytes).await?;
    // Over TLS, written is not yet sent.
    client.flush().await
}

/// A wrong password, or a role that may not log in from here or like this.
fn says_not_believed(sqlstate: SqlState) -> bool {
    matches!(
        sqlstate,
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION
    )
}

/// A backend, its process id and key where it has announced them, and how the login ended.
pub(super) type LoggedIn = (UnixStream, Option<(u32, Registered)>, io::Result<LoginEnd>);

impl FrontDoor {
    /// Connects to the tenant's server and forwards the login. The key counts before the client has
    /// it, and no longer than what is returned.
    pub(super) async fn run_login(
        &self,
        route: &Route,
        packet: &[u8],
        within: Duration,
        login: &mut Login,
        client: &mut impl ClientStream,
    ) -> Result<LoggedIn, Refusal> {
        let mut backend = backend::begin(route, packet, within).await?;
        let mut registered = None;
        let learns = |process_id, key| {
            let issuer = Issuer {
                tenant: route.tenant.clone(),
                socket_directory: route.socket_directory.clone(),
            };
            registered = Some((process_id, self.cancels.register(process_id, key, issuer)));
        };
        let ended = login.run(client, &mut backend, learns).await;
        Ok((backend, registered, ended))
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
