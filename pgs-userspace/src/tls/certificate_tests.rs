//! What makes a pair of files a certificate, and what does not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::tls::files;
use crate::tls::name::CertificateName;
use crate::tls::self_signed;

fn installed(directory: &Path, name: &str) -> Pair {
    let made = self_signed::generate(&[name.to_owned(), "127.0.0.1".into()]).unwrap();
    let name = CertificateName::host(name).unwrap();
    let (certificate, key) = (made.certificate_pem.as_bytes(), made.key_pem.as_bytes());
    files::install(directory, &name, certificate, key).unwrap()
}

#[test]
fn a_certificate_and_its_key() {
    let root = tempfile::tempdir().unwrap();
    let certificate = Certificate::load(&installed(root.path(), "DB.example.com")).unwrap();
    let certificate = certificate.description;
    assert_eq!(certificate.names, ["db.example.com"]);
    assert!(certificate.self_signed);
    assert!(certificate.covers("db.example.com"));
    assert!(!certificate.covers("example.com") && !certificate.covers("*.example.com"));
    let now = SystemTime::now();
    assert_eq!(certificate.problem(now), None);
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    assert_eq!(certificate.problem(now + year), Some("expired"));
    assert_eq!(certificate.problem(now - year), Some("not valid yet"));
}

#[test]
fn a_key_of_another_certificate() {
    let root = tempfile::tempdir().unwrap();
    let (ours, theirs) = (
        installed(root.path(), "a.test"),
        installed(root.path(), "b.test"),
    );
    let pair = Pair {
        key: theirs.key,
        ..ours
    };
    let error = Certificate::load(&pair).unwrap_err();
    assert!(
        matches!(error, CertificateError::Mismatch { .. }),
        "{error}"
    );
}

#[test]
fn a_key_that_others_can_read() {
    let root = tempfile::tempdir().unwrap();
    let pair = installed(root.path(), "a.test");
    let mode = |mode| {
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(mode)).unwrap();
        Certificate::load(&pair)
    };
    assert!(mode(0o600).is_ok());
    assert!(matches!(
        mode(0o644),
        Err(CertificateError::KeyExposed { mode: 0o644, .. })
    ));
    // Root's key with a group that may read it, as Debian's `ssl-cert` does it.
    let root_owned = fs::metadata(&pair.key).unwrap().uid() == 0;
    assert_eq!(mode(0o640).is_ok(), root_owned);
}

#[test]
fn what_is_wrong_is_told_without_a_word_of_the_key() {
    let root = tempfile::tempdir().unwrap();
    let pair = installed(root.path(), "a.test");
    let key = fs::read_to_string(&pair.key).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let cases = [
        key.replace("-----END", "-----OOPS"),
        key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        format!("-----BEGIN {secret}\n{secret}"),
        key.replacen('A', "!", 1),
        key.replacen("MIG", "MIC", 1),
        String::new(),
    ];
    for content in cases {
        fs::write(&pair.key, content).unwrap();
        let error = Certificate::load(&pair).unwrap_err();
        let told = format!("{error} {error:?} {}", error.hint());
        assert!(!told.contains(&secret[3..20]), "{told}");
    }
    let certificate = installed(root.path(), "a.test").certificate;
    for content in ["", "nonsense", &key, "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        fs::write(&certificate, content).unwrap();
        let error = Certificate::load(&pair).unwrap_err();
        assert!(
            matches!(error, CertificateError::NoCertificate { .. }),
            "{error}"
        );
    }
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(&certificate, damaged).unwrap();
    let error = Certificate::load(&pair).unwrap_err();
    assert!(matches!(error, CertificateError::Damaged { .. }), "{error}");
    fs::write(&certificate, vec![b'x'; CERTIFICATE_FILE_BYTES_MAX + 1]).unwrap();
    let error = Certificate::load(&pair).unwrap_err();
    assert!(
        matches!(error, CertificateError::TooLarge { .. }),
        "{error}"
    );
    fs::remove_file(&certificate).unwrap();
    let error = Certificate::load(&pair).unwrap_err();
    assert!(matches!(error, CertificateError::Read { .. }), "{error}");
}

#[test]
fn a_wildcard_covers_one_label() {
    let root = tempfile::tempdir().unwrap();
    let certificate = Certificate::load(&installed(root.path(), "*.example.com")).unwrap();
    let certificate = certificate.description;
    for name in ["*.example.com", "db.example.com"] {
        assert!(certificate.covers(name), "{name}");
    }
    for name in ["example.com", "a.db.example.com", "*.org"] {
        assert!(!certificate.covers(name), "{name}");
    }
}
