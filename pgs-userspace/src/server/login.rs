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
    ready: bool,
    refused: Option<(Option<SqlState>, String)>,
    /// The client has proved itself.
    authenticated: bool,
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
            ready: false,
            refused: None,
            authenticated: false,
            attempt,
            to_backend_bytes: 0,
            to_client_bytes: 0,
        }
    }

    /// Forwards until the login ends. Not cancel safe; the caller's deadline ends the session.
    /// `learns` has the key before the client has.
    pub(super) async fn run(
        &mut self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        backend: &mut UnixStream,
        mut learns: impl FnMut(u32, CancelKey),
    ) -> io::Result<LoginEnd> {
        let mut from_backend = BytesMut::with_capacity(LOGIN_BUFFER_BYTES);
        let mut client_ended = false;
        loop {
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
                    client.write_all(&from_backend).await?;
                    // Over TLS, written is not yet sent.
                    client.flush().await?;
                    self.to_client_bytes += read;
                    from_backend.clear();
                    if self.ready {
                        return Ok(LoginEnd::Ready);
                    }
                }
                read = client.read_buf(&mut self.held), if listen => {
                    client_ended = read? == 0;
                    if client_ended && self.held.is_empty() {
                        return Ok(self.client_closed());
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

    /// Who kept the other waiting when the deadline came.
    pub(super) fn late(&self) -> Refusal {
        if self.asked {
            Refusal::LoginDeadline
        } else {
            Refusal::TenantNotAnswering
        }
    }

    /// Whoever is refused need not wait for the backend's end.
    fn client_closed(&mut self) -> LoginEnd {
        match self.refused.take() {
            Some((sqlstate, message)) => LoginEnd::Refused(sqlstate, message),
            None => LoginEnd::ClientGone,
        }
    }

    fn backend_closed(&mut self) -> LoginEnd {
        match self.refused.take() {
            Some((sqlstate, message)) => LoginEnd::Refused(sqlstate, message),
            None => LoginEnd::BackendGone,
        }
    }
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
mod tests {
    use std::sync::Arc;

    use super::super::admission::Admission;
    use super::super::budget::Budget;
    use super::*;
    use crate::config::sections::Limits;
    use crate::tenant::id::TenantId;
    use crate::tenant::settings::TenantSettings;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    /// Where one failed login is too many; and one that is under way.
    fn begun() -> (impl Fn() -> Result<Option<Attempt>, Refusal>, Login) {
        let limits = Limits {
            login_failures_max: Some(1),
            ..Limits::default()
        };
        let admission = Arc::new(Admission::new(&limits, Budget::ample()));
        let begin = move || {
            let tenant = TenantId::parse("a").unwrap();
            let settings = TenantSettings::default();
            admission.begin_login([192, 0, 2, 1].into(), &tenant, &settings)
        };
        let login = Login::new(BytesMut::new(), begin().unwrap());
        (begin, login)
    }

    fn found_out(messages: &[(u8, &[u8])]) -> bool {
        let (begin, mut login) = begun();
        for (kind, body) in messages {
            login.listen(&message(*kind, body)).unwrap();
        }
        // Whatever the client does from here on.
        let found_out = begin().is_err();
        drop(login);
        assert_eq!(begin().is_err(), found_out);
        found_out
    }

    /// Else it could be back before that is known.
    #[tokio::test]
    async fn a_client_is_found_out_before_it_is_told() {
        let (begin, mut login) = begun();
        let (mut client, mut router) = tokio::io::duplex(1024);
        let (mut backend, mut server) = UnixStream::pair().unwrap();
        let wrong = message(b'E', b"SFATAL\0C28P01\0Mwrong\0\0");
        server.write_all(&wrong).await.unwrap();
        let told = async {
            client.read_u8().await.unwrap();
            begin().is_err()
        };
        tokio::select! {
            biased;
            found_out = told => assert!(found_out),
            ended = login.run(&mut router, &mut backend, |_, _| {}) => panic!("{ended:?}"),
        }
    }

    /// Else a request that comes at once would cancel nothing.
    #[tokio::test]
    async fn a_key_is_learnt_before_its_client_has_it() {
        let (_, mut login) = begun();
        let (mut client, mut router) = tokio::io::duplex(1024);
        let (mut backend, mut server) = UnixStream::pair().unwrap();
        let key = message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]);
        server.write_all(&key).await.unwrap();
        let learnt = std::cell::Cell::new(None);
        let told = async {
            client.read_u8().await.unwrap();
            learnt.get()
        };
        let learns = |process_id, _| learnt.set(Some(process_id));
        tokio::select! {
            biased;
            learnt = told => assert_eq!(learnt, Some(7)),
            ended = login.run(&mut router, &mut backend, learns) => panic!("{ended:?}"),
        }
    }

    /// What the client has not sent whole is not forwarded, unless PostgreSQL takes none so long.
    #[tokio::test]
    async fn the_longest_answer_that_postgresql_takes_arrives_whole() {
        // What its length word may say.
        const PG_MAX_AUTH_TOKEN_LENGTH: usize = 65_535;
        const WHOLE: usize = 1 + PG_MAX_AUTH_TOKEN_LENGTH;
        let longest = message(b'p', &[7; WHOLE - 5]);
        let too_long = message(b'p', &[7; WHOLE - 4]);
        for (answer, arrives) in [
            (&longest[..WHOLE - 1], 0),
            (&longest, WHOLE),
            (&too_long[..5], 5),
        ] {
            let (_, mut login) = begun();
            let (mut backend, mut server) = UnixStream::pair().unwrap();
            login.listen(&message(SASL.0, SASL.1)).unwrap();
            login.held.extend_from_slice(answer);
            let mut arrived = Vec::new();
            let answering = async {
                login.answer(&mut backend).await;
                drop(backend);
            };
            let (_, read) = tokio::join!(answering, server.read_to_end(&mut arrived));
            assert_eq!(read.unwrap(), arrives);
            assert!(answer.starts_with(&arrived));
        }
    }

    #[test]
    fn who_is_late_is_who_was_asked() {
        let (_, mut login) = begun();
        let not_answering = Refusal::TenantNotAnswering;
        assert_eq!(login.late(), not_answering);
        login.listen(&message(SASL.0, SASL.1)).unwrap();
        assert_eq!(login.late(), Refusal::LoginDeadline);
        login.asked = false;
        assert_eq!(login.late(), not_answering, "the client has answered");
    }

    const OK: (u8, &[u8]) = (b'R', &[0, 0, 0, 0]);
    const SASL: (u8, &[u8]) = (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");

    #[test]
    fn a_client_is_found_out_by_what_comes_before_authentication_ok() {
        let wrong_password = (b'E', &b"SFATAL\0C28P01\0Mwrong\0\0"[..]);
        let may_not = (b'E', &b"SFATAL\0C28000\0Mno\0\0"[..]);
        let no_database = (b'E', &b"SFATAL\0C3D000\0Mno\0\0"[..]);
        assert!(found_out(&[SASL, wrong_password]));
        assert!(found_out(&[may_not]));
        assert!(!found_out(&[SASL, no_database]));
        assert!(!found_out(&[SASL, OK, may_not]));
        assert!(!found_out(&[SASL]));
    }
}
