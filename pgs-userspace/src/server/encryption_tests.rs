//! What goes over the wire, record by record, and which names are for tenants.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use super::*;
use crate::config::value::Domains;
use crate::tls::files;
use crate::tls::name::CertificateName;
use crate::tls::self_signed;

/// Content type of records that hold data, encrypted handshake messages or tickets: RFC 8446, 5.1.
const APPLICATION_DATA: u8 = 23;

struct Fixture {
    _root: tempfile::TempDir,
    encryption: Encryption,
    trusted: Arc<ClientConfig>,
}

fn fixture(domains: Vec<String>) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let made = self_signed::generate(&["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.certificate_pem.as_bytes(), made.key_pem.as_bytes());
    let name = CertificateName::Default;
    files::install(root.path(), &name, certificate, key).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(certificate).unwrap())
        .unwrap();
    let mut trusted = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    trusted.alpn_protocols = vec![ALPN.to_vec()];
    let store = CertificateStore::open(root.path().to_owned());
    let tls = Tls {
        domains: Domains(domains),
        ..Tls::default()
    };
    Fixture {
        encryption: Encryption::new(store, &tls).unwrap(),
        trusted: Arc::new(trusted),
        _root: root,
    }
}

/// Reads to the end; the lengths of the records with data, headers included, and the data.
fn records(address: SocketAddr, trusted: Arc<ClientConfig>) -> (Vec<usize>, Vec<u8>) {
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let name = "localhost".try_into().unwrap();
    let mut session = ClientConnection::new(trusted, name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    let mut lengths = Vec::new();
    let mut at = 0;
    while at < rest.len() {
        let length = 5 + usize::from(u16::from_be_bytes([rest[at + 3], rest[at + 4]]));
        assert_eq!(rest[at], APPLICATION_DATA);
        lengths.push(length);
        at += length;
    }
    let (mut data, mut rest) = (Vec::new(), &rest[..]);
    while !rest.is_empty() {
        session.read_tls(&mut rest).unwrap();
        session.process_new_packets().unwrap();
        session.reader().read_to_end(&mut data).ok();
    }
    assert_eq!(session.alpn_protocol(), Some(ALPN));
    session.writer().flush().unwrap();
    (lengths, data)
}

#[tokio::test]
async fn records_are_small_and_there_are_no_tickets() {
    let Fixture {
        _root,
        encryption,
        trusted,
    } = fixture(Vec::new());
    assert!(encryption.has_certificate().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = spawn_blocking(move || records(address, trusted));
    let (socket, _) = listener.accept().await.unwrap();
    let front = BytesMut::new();
    let asked = ClientCertificateRequest::None;
    let accepted = encryption
        .accept(socket, TlsRequest::Direct, front, asked)
        .await;
    let mut stream = accepted.unwrap();
    assert_eq!(stream.get_ref().1.server_name(), Some("localhost"));
    // Less than rustls keeps at once, or there would be a short record in the middle.
    let sent: Vec<u8> = (0..40_000_u32).map(|at| at as u8).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let (lengths, data) = client.await.unwrap();
    assert_eq!(data, sent);
    // The data and close_notify: tickets would be records of their own, and make the first short.
    let tag_bytes = 17;
    let largest = TLS_RECORD_BYTES_MAX + tag_bytes;
    assert!(
        lengths.iter().all(|length| *length <= largest),
        "{lengths:?}"
    );
    assert_eq!(lengths[0], largest, "{lengths:?}");
    let payload = TLS_RECORD_BYTES_MAX - 5;
    assert_eq!(
        lengths.len(),
        sent.len().div_ceil(payload) + 1,
        "{lengths:?}"
    );
}

#[test]
fn only_one_label_before_a_known_domain_is_a_tenant() {
    let fixture = fixture(vec!["db.example.com".to_owned(), "local".to_owned()]);
    let label = |name| fixture.encryption.tenant_label(name);
    assert_eq!(label("acme.db.example.com"), Some("acme"));
    assert_eq!(label("acme.DB.example.com"), Some("acme"));
    assert_eq!(label("acme.local"), Some("acme"));
    assert_eq!(label("acme.db.example.com."), Some("acme"));
    assert_eq!(label("acme.local."), Some("acme"));
    for name in [
        "db.example.com",
        "a.b.db.example.com",
        "acme.example.com",
        "local",
        "local.",
        "acme.local..",
        "acme.",
        ".",
        "",
    ] {
        assert_eq!(label(name), None, "{name}");
    }
}
