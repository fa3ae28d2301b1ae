//! All certificates, and which one a client is shown. Changed files count without a restart.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::time::Instant;

use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::certificate::Certificate;
use super::certificate::CertificateError;
use super::files::Layout;
use super::files::Pair;
use super::name::CertificateName;
use super::name::without_root;
use super::stamp::Stamp;
use crate::config::limits::CERTIFICATE_CHECK_INTERVAL;

/// The certificates of a directory.
///
/// A new one that cannot be used leaves the last good one in its place; only when both of its files
/// are gone is a certificate no longer shown.
#[derive(Debug)]
pub struct CertificateStore {
    serving: RwLock<Arc<Serving>>,
    watch: Arc<Mutex<Watch>>,
}

/// What clients are shown, by what they ask for.
#[derive(Debug, Default)]
struct Serving {
    default: Option<Arc<CertifiedKey>>,
    /// Names in lower case; `*.` stands for one label.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

/// What is known of the files.
#[derive(Debug)]
struct Watch {
    directory: PathBuf,
    looked_at: Instant,
    entries: BTreeMap<CertificateName, Entry>,
    /// Told once, not at every look.
    unreadable: bool,
}

#[derive(Debug, Default)]
struct Entry {
    seen: Seen,
    good: Option<Certificate>,
}

/// How far the files that are there are known.
#[derive(Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Never,
    /// They were read, and are what they are, good or bad, until they change.
    Read(Stamps),
    /// They could not be read, and that was told. It says nothing of them, descriptors may have
    /// been short: the next look tries again.
    Unread(Stamps),
}

/// What a look at it has found that is new.
#[derive(Debug)]
enum Found {
    Nothing,
    /// A good one, for these names.
    Certificate(String),
    /// None that can be used; the last good one stays.
    Fault(CertificateError),
}

/// Of the certificate and the key.
type Stamps = [Option<Stamp>; 2];

/// [`Certificate::load`], but in tests.
type Load = fn(&Pair) -> Result<Certificate, CertificateError>;

impl CertificateStore {
    /// Reads the directory; what is wrong with it is logged.
    pub fn open(directory: PathBuf) -> Self {
        let mut watch = Watch {
            directory,
            looked_at: Instant::now(),
            entries: BTreeMap::new(),
            unreadable: false,
        };
        watch.look();
        Self {
            serving: RwLock::new(Arc::new(watch.serving())),
            watch: Arc::new(Mutex::new(watch)),
        }
    }

    /// Whether there is no certificate at all.
    pub fn is_empty(&self) -> bool {
        let serving = self.serving();
        serving.default.is_none() && serving.by_name.is_empty()
    }

    /// Looks at the files again if the last look was a while ago. Never waits for another's look.
    pub async fn refresh(self: &Arc<Self>) {
        let Ok(mut watch) = Arc::clone(&self.watch).try_lock_owned() else {
            return;
        };
        if watch.looked_at.elapsed() < CERTIFICATE_CHECK_INTERVAL {
            return;
        }
        let store = Arc::clone(self);
        let looked = spawn_blocking(move || {
            watch.looked_at = Instant::now();
            if watch.look() {
                let serving = Arc::new(watch.serving());
                *store
                    .serving
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = serving;
            }
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "the certificates could not be looked at");
        }
    }

    fn serving(&self) -> Arc<Serving> {
        let serving = self.serving.read();
        Arc::clone(&serving.unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.serving().find(hello.server_name()).cloned()
    }
}

impl Serving {
    fn find(&self, asked: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let named = asked.and_then(|name| {
            let name = without_root(name).to_ascii_lowercase();
            let exact = self.by_name.get(&name);
            exact.or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.by_name.get(&format!("*.{parent}"))
            })
        });
        named.or(self.default.as_ref())
    }
}

impl Watch {
    /// Reads what has changed; whether anything has.
    fn look(&mut self) -> bool {
        self.look_with(Certificate::load)
    }

    fn look_with(&mut self, load: Load) -> bool {
        let layout = match Layout::read(&self.directory) {
            Ok(layout) => layout,
            Err(error) => {
                if !self.unreadable {
                    let path = self.directory.display();
                    tracing::warn!(%path, %error, "certificates cannot be read; those known stay");
                }
                self.unreadable = true;
                return false;
            }
        };
        self.unreadable = false;
        let before = self.entries.len();
        self.entries.retain(|name, _| {
            let stays = layout.pairs.contains_key(name);
            if !stays {
                tracing::info!(%name, "certificate removed");
            }
            stays
        });
        let mut changed = self.entries.len() != before;
        for (name, pair) in layout.pairs {
            changed |= self.look_at(&name, &pair, load);
        }
        changed
    }

    /// Whether there is a new one.
    fn look_at(&mut self, name: &CertificateName, pair: &Pair, load: Load) -> bool {
        let entry = self.entries.entry(name.clone()).or_default();
        match entry.look(pair, load) {
            Found::Nothing => false,
            Found::Certificate(names) => {
                tracing::info!(%name, names, "certificate loaded");
                true
            }
            Found::Fault(error) => {
                warn(name, &error, entry.good.is_some());
                false
            }
        }
    }

    /// What a certificate is kept under counts more than what it says itself that it is for.
    fn serving(&self) -> Serving {
        let mut serving = Serving::default();
        let entries = || {
            let good = |(name, entry)| Some((name, Entry::good(entry)?));
            self.entries.iter().filter_map(good)
        };
        for (_, certificate) in entries() {
            for name in &certificate.description.names {
                let key = || Arc::clone(certificate.key());
                serving.by_name.entry(name.clone()).or_insert_with(key);
            }
        }
        for (name, certificate) in entries() {
            let key = Arc::clone(certificate.key());
            match name {
                CertificateName::Default => serving.default = Some(key),
                CertificateName::Host(host) => {
                    serving.by_name.insert(host.clone(), key);
                }
            }
        }
        serving
    }
}

impl Entry {
    fn look(&mut self, pair: &Pair, load: Load) -> Found {
        // Before reading: what changes meanwhile is seen at the next look.
        let stamps = [Stamp::of(&pair.certificate), Stamp::of(&pair.key)];
        if self.seen == Seen::Read(stamps) {
            return Found::Nothing;
        }
        let loaded = load(pair);
        let seen = match &loaded {
            Err(CertificateError::Read { .. }) => Seen::Unread(stamps),
            _ => Seen::Read(stamps),
        };
        let is_told = self.seen == seen;
        self.seen = seen;
        match loaded {
            Ok(certificate) => {
                let names = certificate.description.names.join(" ");
                self.good = Some(certificate);
                Found::Certificate(names)
            }
            Err(_) if is_told => Found::Nothing,
            Err(error) => Found::Fault(error),
        }
    }

    fn good(&self) -> Option<&Certificate> {
        self.good.as_ref()
    }
}

fn warn(name: &CertificateName, error: &CertificateError, kept: bool) {
    let hint = error.hint();
    if kept {
        tracing::warn!(%name, %error, hint, "new certificate not used; the last good one stays");
    } else {
        tracing::warn!(%name, %error, hint, "certificate not used");
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
