//! Which certificate is shown, and what a change of the files does to it.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::tls::files;
use crate::tls::self_signed;

struct Fixture {
    root: tempfile::TempDir,
    watch: Watch,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let watch = Watch {
            directory: root.path().to_owned(),
            looked_at: Instant::now(),
            entries: BTreeMap::new(),
            unreadable: false,
        };
        Self { root, watch }
    }

    fn install(&self, name: &CertificateName, names: &[&str]) -> Pair {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = self_signed::generate(&names).unwrap();
        let (certificate, key) = (made.certificate_pem.as_bytes(), made.key_pem.as_bytes());
        files::install(self.root.path(), name, certificate, key).unwrap()
    }

    /// What is shown to a client that asks for that name.
    fn shown(&self, asked: Option<&str>) -> Option<Vec<u8>> {
        let serving = self.watch.serving();
        serving.find(asked).map(|key| key.cert[0].to_vec())
    }
}

fn host(name: &str) -> CertificateName {
    CertificateName::host(name).unwrap()
}

fn der(pair: &Pair) -> Vec<u8> {
    Certificate::load(pair).unwrap().key().cert[0].to_vec()
}

#[test]
fn the_closest_name_wins() {
    let mut fixture = Fixture::new();
    let exact = fixture.install(&host("a.test"), &["a.test", "also.test"]);
    let wild = fixture.install(&host("wild"), &["*.test"]);
    // Says it is for `a.test` too, but is kept under another name.
    let other = fixture.install(&host("0.test"), &["a.test", "0.test"]);
    assert!(fixture.watch.look());
    assert!(!fixture.watch.look(), "nothing has changed");
    let shown = |name| fixture.shown(Some(name));
    assert_eq!(shown("a.test"), Some(der(&exact)));
    assert_eq!(shown("A.TEST"), Some(der(&exact)));
    assert_eq!(shown("also.test"), Some(der(&exact)));
    assert_eq!(shown("0.test"), Some(der(&other)));
    assert_eq!(shown("b.test"), Some(der(&wild)));
    assert_eq!(shown("also.test."), Some(der(&exact)));
    assert_eq!(shown("b.test."), Some(der(&wild)));
    for name in ["test", "c.b.test", "b.test.org", "a.test..", ".", ""] {
        assert_eq!(shown(name), None, "{name:?}");
    }
    assert_eq!(fixture.shown(None), None);
    let default = fixture.install(&CertificateName::Default, &["default.test"]);
    assert!(fixture.watch.look());
    for name in [None, Some("c.b.test"), Some("default.test")] {
        assert_eq!(fixture.shown(name), Some(der(&default)), "{name:?}");
    }
}

#[test]
fn a_bad_one_leaves_the_last_good_one() {
    let mut fixture = Fixture::new();
    let pair = fixture.install(&CertificateName::Default, &["one.test"]);
    fixture.watch.look();
    let one = fixture.shown(None);
    assert!(one.is_some());
    let good_key = fs::read(&pair.key).unwrap();
    let other = fixture.install(&host("other.test"), &["other.test"]);
    for bad in [b"nonsense".to_vec(), fs::read(&other.key).unwrap()] {
        fs::write(&pair.key, bad).unwrap();
        fixture.watch.look();
        assert_eq!(fixture.shown(None), one);
    }
    fs::remove_file(&pair.key).unwrap();
    fixture.watch.look();
    assert_eq!(fixture.shown(None), one, "half of it is still there");
    fs::write(&pair.key, good_key).unwrap();
    let two = fixture.install(&CertificateName::Default, &["two.test"]);
    assert!(fixture.watch.look());
    assert_eq!(fixture.shown(None), Some(der(&two)));
    fs::remove_file(&pair.key).unwrap();
    fs::remove_file(&pair.certificate).unwrap();
    assert!(fixture.watch.look());
    assert_eq!(fixture.shown(None), None);
}

#[test]
fn one_that_cannot_be_looked_at_is_not_gone() {
    let mut fixture = Fixture::new();
    let certbot = fixture.install(&CertificateName::Default, &["one.test"]);
    fs::write(fixture.root.path().join("lego.test.key"), "").unwrap();
    let lego = fixture.install(&host("lego.test"), &["lego.test"]);
    assert!(lego.key.ends_with("lego.test.key"));
    fixture.watch.look();
    let shown = [fixture.shown(None), fixture.shown(Some("lego.test"))];
    assert_eq!(shown, [Some(der(&certbot)), Some(der(&lego))]);
    // To stat them is an error, and another one than that there are none.
    for path in [
        &certbot.certificate,
        &certbot.key,
        &lego.certificate,
        &lego.key,
    ] {
        fs::remove_file(path).unwrap();
        symlink(path, path).unwrap();
        assert!(path.try_exists().is_err());
    }
    assert!(!fixture.watch.look());
    let still = [fixture.shown(None), fixture.shown(Some("lego.test"))];
    assert_eq!(still, shown, "the last good ones stay");
    // Nor is what cannot be entered.
    let directory = certbot.key.parent().unwrap();
    fs::remove_dir_all(directory).unwrap();
    symlink(directory, directory).unwrap();
    assert!(!fixture.watch.look());
    assert_eq!(fixture.shown(None), shown[0]);
    fs::remove_file(directory).unwrap();
    assert!(fixture.watch.look());
    assert_eq!(fixture.shown(None), None);
}

#[test]
fn one_that_was_never_good_is_not_shown() {
    let mut fixture = Fixture::new();
    let pair = fixture.install(&CertificateName::Default, &["one.test"]);
    fs::write(&pair.key, "nonsense").unwrap();
    fixture.watch.look();
    assert_eq!(fixture.shown(None), None);
    let good = fixture.install(&CertificateName::Default, &["one.test"]);
    assert!(fixture.watch.look());
    assert_eq!(fixture.shown(None), Some(der(&good)));
}

/// As when all descriptors are taken.
fn unreadable(pair: &Pair) -> Result<Certificate, CertificateError> {
    Err(CertificateError::Read {
        path: pair.certificate.clone(),
        source: nix::errno::Errno::EMFILE.into(),
    })
}

#[test]
fn one_that_could_not_be_read_is_read_at_the_next_look() {
    let mut fixture = Fixture::new();
    fixture.install(&CertificateName::Default, &["one.test"]);
    fixture.watch.look();
    let one = fixture.shown(None);
    let renewed = fixture.install(&CertificateName::Default, &["two.test"]);
    for _ in 0..3 {
        assert!(!fixture.watch.look_with(unreadable));
        assert_eq!(fixture.shown(None), one, "the last good one stays");
    }
    assert!(fixture.watch.look(), "its files are the same as before");
    assert_eq!(fixture.shown(None), Some(der(&renewed)));
    assert!(
        !fixture.watch.look_with(unreadable),
        "is read though it has not changed"
    );
    // Also what was never good.
    fixture.install(&host("a.test"), &["a.test"]);
    fixture.watch.look_with(unreadable);
    assert!(fixture.watch.look() && fixture.shown(Some("a.test")).is_some());
}

#[test]
fn one_that_cannot_be_read_is_told_once_until_it_changes() {
    let fixture = Fixture::new();
    let pair = fixture.install(&CertificateName::Default, &["one.test"]);
    let mut entry = Entry::default();
    for _ in 0..2 {
        assert!(matches!(entry.look(&pair, unreadable), Found::Fault(_)));
        for _ in 0..3 {
            assert!(matches!(entry.look(&pair, unreadable), Found::Nothing));
        }
        fixture.install(&CertificateName::Default, &["two.test"]);
    }
    assert!(matches!(
        entry.look(&pair, Certificate::load),
        Found::Certificate(_)
    ));
    assert!(matches!(entry.look(&pair, unreadable), Found::Nothing));
}

#[tokio::test]
async fn the_store_looks_again_after_a_while() {
    let fixture = Fixture::new();
    let store = Arc::new(CertificateStore::open(fixture.root.path().to_owned()));
    assert!(store.is_empty());
    fixture.install(&CertificateName::Default, &["one.test"]);
    store.refresh().await;
    assert!(store.is_empty(), "it has only just looked");
    tokio::time::sleep(CERTIFICATE_CHECK_INTERVAL).await;
    store.refresh().await;
    assert!(!store.is_empty());
}
