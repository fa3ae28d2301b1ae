//! What is forwarded in a login, and how a client is found out by it.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::net::TcpStream;

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

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leaving {
    /// By FIN.
    Closed,
    /// By RST.
    Reset,
}

/// The end of a login whose client leaves when its answer is with the server, which says `next`
/// then; and whether the client was found out.
async fn left_behind(leaving: Leaving, next: &[u8]) -> (io::Result<LoginEnd>, bool) {
    let (begin, mut login) = begun();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let (mut router, _) = listener.accept().await.unwrap();
    let (mut backend, mut server) = UnixStream::pair().unwrap();
    let asking = message(SASL.0, SASL.1);
    let answer = message(b'p', b"proof");
    let leaves = async {
        server.write_all(&asking).await.unwrap();
        // Whoever closes on what it has not read resets.
        client.read_exact(&mut vec![0; asking.len()]).await.unwrap();
        client.write_all(&answer).await.unwrap();
        let mut arrived = vec![0; answer.len()];
        server.read_exact(&mut arrived).await.unwrap();
        assert_eq!(arrived, answer);
        if leaving == Leaving::Reset {
            client.set_zero_linger().unwrap();
        }
        drop(client);
        // The router is to notice it first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.write_all(next).await.unwrap();
        // The login ends by what the server says, and not by its end.
        server
    };
    let (ended, _server) = tokio::join!(login.run(&mut router, &mut backend, |_, _| {}), leaves);
    drop(login);
    (ended, begin().is_err())
}

/// It could learn elsewhere whether the password was right.
#[tokio::test]
async fn a_client_that_does_not_wait_for_the_verdict_is_found_out() {
    let wrong = message(b'E', b"SFATAL\0C28P01\0Mwrong\0\0");
    for leaving in [Leaving::Closed, Leaving::Reset] {
        let (ended, found_out) = left_behind(leaving, &wrong).await;
        assert!(found_out, "{leaving:?}: {ended:?}");
        let refused = matches!(
            ended,
            Ok(LoginEnd::Refused(Some(SqlState::INVALID_PASSWORD), _))
        );
        assert!(refused, "{leaving:?}");
    }
}

/// Whatever else it has sent.
#[tokio::test]
async fn a_client_that_is_gone_at_the_deadline_has_failed() {
    for more in [&b""[..], b"X"] {
        let (begin, mut login) = begun();
        let (mut client, mut router) = tokio::io::duplex(1024);
        let (mut backend, mut server) = UnixStream::pair().unwrap();
        server.write_all(&message(SASL.0, SASL.1)).await.unwrap();
        let answer = [&message(b'p', b"proof")[..], more].concat();
        client.write_all(&answer).await.unwrap();
        let begun = Duration::from_millis(100);
        let run = login.run(&mut router, &mut backend, |_, _| {});
        let leaves = async {
            client.read_u8().await.unwrap();
            drop(client);
        };
        let (late, ()) = tokio::join!(tokio::time::timeout(begun, run), leaves);
        assert!(late.is_err(), "{late:?}");
        login.late();
        assert!(begin().is_err(), "{more:?}");
    }
}

#[tokio::test]
async fn nobody_waits_longer_than_for_the_verdict() {
    // The second one asks for more, which nobody will answer.
    let more = message(b'R', b"\0\0\0\x0br=nonce");
    for next in [message(OK.0, OK.1), more] {
        let (ended, found_out) = left_behind(Leaving::Closed, &next).await;
        assert!(matches!(ended, Ok(LoginEnd::ClientGone)), "{ended:?}");
        assert!(!found_out);
        let (ended, found_out) = left_behind(Leaving::Reset, &next).await;
        assert!(ended.is_err(), "{ended:?}");
        assert!(!found_out);
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

#[tokio::test]
async fn who_is_gone_and_not_judged_when_the_deadline_comes_has_failed() {
    let (begin, mut login) = begun();
    let (mut backend, _server) = UnixStream::pair().unwrap();
    login.listen(&message(SASL.0, SASL.1)).unwrap();
    login.late();
    assert!(begin().is_ok(), "nothing was answered");
    login.held.extend_from_slice(&message(b'p', b"proof"));
    login.answer(&mut backend).await;
    login.late();
    assert!(begin().is_ok(), "it waits for a slow server");
    login.client_gone = true;
    login.late();
    assert!(begin().is_err());
}

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
