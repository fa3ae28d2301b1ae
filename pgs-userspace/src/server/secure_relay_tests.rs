//! The relay between an in-memory client and a socket pair.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt as _;
use tokio::io::DuplexStream;
use tokio::io::duplex;

use super::*;
use crate::config::sections::Limits;
use crate::protocol::refusal::Refusal;
use crate::server::admission::Admission;
use crate::server::admission::ArrivalPlace;
use crate::server::budget::Budget;
use crate::server::sessions::Identity;
use crate::server::sessions::Sessions;
use crate::server::unseen_login::Places;
use crate::tenant::id::TenantId;
use crate::tenant::settings::TenantSettings;

/// What the in-memory client's connection holds.
const CONNECTION_BYTES: usize = 1024;

struct Fixture {
    sessions: Arc<Sessions>,
    client: DuplexStream,
    backend: UnixStream,
}

fn fixture() -> Fixture {
    fixture_with(|client| client, b"", None)
}

/// `held`: what the client had sent before its login ended.
fn fixture_with<C>(
    wrap: impl FnOnce(DuplexStream) -> C,
    held: &[u8],
    unseen: Option<UnseenLogin>,
) -> Fixture
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sessions = Arc::new(Sessions::new(1));
    let identity = Identity {
        tenant: TenantId::parse("acme").unwrap(),
        user: Some("acme".into()),
        database: Some("acme".into()),
        client: ([127, 0, 0, 1], 1).into(),
    };
    let lease = sessions
        .begin(identity, &TenantSettings::default())
        .unwrap();
    let (client, client_end) = duplex(CONNECTION_BYTES);
    let (backend, backend_end) = UnixStream::pair().unwrap();
    begin(wrap(client_end), backend_end, held, lease, unseen);
    Fixture {
        sessions,
        client,
        backend,
    }
}

impl Fixture {
    async fn ends_within(&self, limit: Duration) {
        let begun = Instant::now();
        while self.sessions.live() > 0 {
            assert!(begun.elapsed() < limit, "still there after {limit:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Bytes that show when some are missing, doubled or out of order.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test]
async fn every_byte_arrives_both_ways_at_once() {
    let Fixture {
        sessions,
        client,
        backend,
    } = fixture();
    let sent = pattern(1024 * 1024 + 7);
    let session = Arc::clone(&sessions.list(None)[0]);
    let both = |stream| {
        let sent = sent.clone();
        async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let write = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            tokio::join!(write, async {
                reader.read_to_end(&mut received).await.unwrap()
            });
            assert!(received == sent, "{} bytes, or others", received.len());
        }
    };
    let client = both(Box::new(client) as Box<dyn Stream>);
    let backend = both(Box::new(backend) as Box<dyn Stream>);
    tokio::join!(client, backend);
    assert_eq!(session.meter.relayed_to_backend(), sent.len() as u64);
    assert_eq!(session.meter.relayed_to_client(), sent.len() as u64);
    assert_eq!(session.meter.path().name(), "tls");
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

#[tokio::test]
async fn what_the_login_held_back_comes_first() {
    let held = pattern(100_000);
    let mut fixture = fixture_with(|client| client, &held, None);
    fixture.client.write_all(b"and on").await.unwrap();
    fixture.client.shutdown().await.unwrap();
    let mut received = Vec::new();
    fixture.backend.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, [&held[..], b"and on"].concat());
}

/// A TLS stream takes more than it can send, as this one does.
#[tokio::test]
async fn what_the_client_has_taken_is_sent_to_its_last_byte() {
    let mut fixture = fixture_with(tokio::io::BufWriter::new, b"", None);
    let sent = pattern(CONNECTION_BYTES * 7 + 1);
    fixture.backend.write_all(&sent).await.unwrap();
    let mut received = vec![0; sent.len()];
    let received_all = fixture.client.read_exact(&mut received);
    let limit = Duration::from_secs(5);
    timeout(limit, received_all).await.unwrap().unwrap();
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_client_that_has_ended_still_gets_its_answer() {
    let mut fixture = fixture();
    fixture.client.write_all(b"query").await.unwrap();
    fixture.client.shutdown().await.unwrap();
    let mut query = Vec::new();
    fixture.backend.read_to_end(&mut query).await.unwrap();
    assert_eq!(query, b"query");
    // Longer than any lingering.
    sleep(CLOSE_LINGER + Duration::from_millis(200)).await;
    assert_eq!(fixture.sessions.live(), 1);
    fixture.backend.write_all(b"answer").await.unwrap();
    fixture.backend.shutdown().await.unwrap();
    let mut answer = Vec::new();
    fixture.client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    fixture.ends_within(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_backend_that_is_gone_ends_the_session_after_its_last_words() {
    let mut fixture = fixture();
    // Unread input makes the close a reset.
    fixture.client.write_all(b"unread").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    fixture.backend.write_all(b"last words").await.unwrap();
    let (backend, other) = UnixStream::pair().unwrap();
    drop(other);
    drop(std::mem::replace(&mut fixture.backend, backend));
    let mut words = Vec::new();
    fixture.client.read_to_end(&mut words).await.unwrap();
    assert_eq!(words, b"last words");
    // The client goes on as if nothing had happened; the session ends all the same.
    fixture.client.write_all(b"more").await.unwrap();
    fixture
        .ends_within(CLOSE_LINGER + Duration::from_secs(1))
        .await;
}

#[tokio::test]
async fn a_backend_that_only_half_closed_is_listened_for() {
    let mut fixture = fixture();
    fixture.backend.shutdown().await.unwrap();
    assert_eq!(fixture.client.read(&mut [0]).await.unwrap(), 0);
    sleep(CLOSE_LINGER + Duration::from_millis(200)).await;
    fixture.client.write_all(b"still here").await.unwrap();
    fixture.client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    fixture.backend.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"still here");
    fixture.ends_within(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn ended_from_outside_both_sides_are_closed() {
    let mut fixture = fixture();
    sleep(Duration::from_millis(20)).await;
    fixture.sessions.end_all(&CloseReason::Terminated);
    assert_eq!(fixture.client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(fixture.backend.read(&mut [0]).await.unwrap(), 0);
    fixture.ends_within(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn ended_before_the_relay_had_begun_to_listen() {
    let fixture = fixture();
    fixture.sessions.end_all(&CloseReason::Shutdown);
    fixture.ends_within(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_makes_the_backend_wait() {
    let fixture = fixture();
    let piece = [0; 4096];
    let mut taken = 0;
    let mut quiet = 0;
    while quiet < 20 {
        match fixture.backend.try_write(&piece) {
            Ok(bytes) => (taken, quiet) = (taken + bytes, 0),
            Err(_) => {
                quiet += 1;
                sleep(Duration::from_millis(5)).await;
            }
        }
        assert!(taken < 16 * 1024 * 1024, "there is no end to it");
    }
    // What it takes besides is the socket pair's own.
    let (alone, _other) = UnixStream::pair().unwrap();
    let mut own = 0;
    while let Ok(bytes) = alone.try_write(&piece) {
        own += bytes;
    }
    let bound = own + CONNECTION_BYTES + crate::config::limits::SECURE_RELAY_READ_BYTES * 2;
    assert!(taken <= bound, "{taken} bytes, {own} of them in the socket");
    let session = &fixture.sessions.list(None)[0];
    assert_eq!(session.meter.relayed_to_client(), CONNECTION_BYTES as u64);
}

/// An admission that has two places for logins which are not seen, one of its address; and a login
/// that has taken one of each, for so long.
struct Unseen {
    admission: Admission,
    places: Vec<Option<ArrivalPlace>>,
}

impl Unseen {
    fn begin(period: Duration) -> (Self, UnseenLogin) {
        let limits = Limits {
            address_logins_max: Some(1),
            address_arrivals_max: Some(1),
            ..Limits::default()
        };
        let admission = Admission::new(&limits, Budget::ample());
        let mut unseen = Self {
            admission,
            places: Vec::new(),
        };
        let login = Places {
            _of_login: unseen.login_place().unwrap(),
            _of_address: unseen.admission.arrive(CLIENT).unwrap(),
        };
        // The other one is taken for good.
        let other = unseen.login_place().unwrap();
        unseen.places.push(other);
        (unseen, UnseenLogin::within(period, login))
    }

    fn login_place(&self) -> Result<Option<ArrivalPlace>, Refusal> {
        let acme = TenantId::parse("acme").unwrap();
        self.admission.unseen_login_place(CLIENT, &acme)
    }

    /// Whether the login still holds both of its places.
    fn is_under_way(&self) -> bool {
        let held = self.login_place().is_err();
        assert_eq!(self.admission.arrive(CLIENT).is_err(), held);
        held
    }
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn a_login_that_is_not_seen_is_under_way_for_its_time_whatever_it_moves() {
    let period = Duration::from_secs(1);
    let begun = Instant::now();
    let (unseen, login) = Unseen::begin(period);
    let mut fixture = fixture_with(|client| client, b"", Some(login));
    let sent = pattern(256 * 1024);
    let (client, backend) = (&mut fixture.client, &mut fixture.backend);
    let mut received = vec![0; sent.len()];
    tokio::join!(async { backend.write_all(&sent).await.unwrap() }, async {
        client.read_exact(&mut received).await.unwrap()
    },);
    assert!(unseen.is_under_way());
    while unseen.is_under_way() {
        assert!(begun.elapsed() < period * 10, "for ever");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() >= period, "after {:?}", begun.elapsed());
    assert_eq!(fixture.sessions.live(), 1);
}

#[tokio::test]
async fn a_login_that_is_not_seen_ends_with_its_session() {
    let (unseen, login) = Unseen::begin(Duration::from_secs(600));
    let fixture = fixture_with(|client| client, b"", Some(login));
    assert!(unseen.is_under_way());
    fixture.sessions.end_all(&CloseReason::Terminated);
    fixture.ends_within(Duration::from_secs(5)).await;
    assert!(!unseen.is_under_way());
}
