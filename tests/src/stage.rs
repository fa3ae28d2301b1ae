//! What the scenarios of one data path share: an installation and a few tenants, made when first
//! asked for, because a container takes seconds.

use std::io::Write as _;
use std::sync::OnceLock;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;

use crate::installation::Installation;
use crate::router::DataPath;
use crate::router::Router;
use crate::skip::Skip;
use crate::tenant;
use crate::tenant::Login;
use crate::wire::Wire;

/// A scenario fails with an error, or with [`Skip`] where it cannot be run.
pub type Scenario = fn(&Stage) -> anyhow::Result<()>;

/// Made at most once, and if that fails, it has failed for all.
#[derive(Debug)]
struct Once<T>(OnceLock<Result<T, Unavailable>>);

#[derive(Debug)]
enum Unavailable {
    Skipped(Skip),
    Failed(String),
}

impl<T> Once<T> {
    const fn new() -> Self {
        Self(OnceLock::new())
    }

    fn get(&self, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&T> {
        let made = self.0.get_or_init(|| {
            make().map_err(|error| match error.downcast::<Skip>() {
                Ok(skip) => Unavailable::Skipped(skip),
                Err(error) => Unavailable::Failed(format!("{error:#}")),
            })
        });
        match made {
            Ok(made) => Ok(made),
            Err(Unavailable::Skipped(skip)) => Err(skip.clone().into()),
            Err(Unavailable::Failed(error)) => Err(anyhow!("{error}")),
        }
    }
}

/// One data path and all that its scenarios need.
#[derive(Debug)]
pub struct Stage {
    path: DataPath,
    installation: Once<Installation>,
    tenants: [(&'static str, &'static [&'static str], Once<Login>); 3],
}

impl Stage {
    /// Makes nothing yet.
    pub fn new(path: DataPath) -> Self {
        let tenants = [
            ("alpha", &["--enable"][..], Once::new()),
            ("beta", &["--enable"][..], Once::new()),
            ("chief", &["--enable", "--superuser"][..], Once::new()),
        ];
        Self {
            path,
            installation: Once::new(),
            tenants,
        }
    }

    /// Kernel or relay.
    pub fn path(&self) -> DataPath {
        self.path
    }

    /// The installation that all share.
    pub fn installation(&self) -> anyhow::Result<&Installation> {
        self.installation.get(|| Installation::start(self.path))
    }

    /// Its router.
    pub fn router(&self) -> anyhow::Result<&Router> {
        Ok(self.installation()?.router())
    }

    /// A tenant that all share: nobody stops, disables or fills it.
    pub fn alpha(&self) -> anyhow::Result<&Login> {
        self.shared(0)
    }

    /// Another one.
    pub fn beta(&self) -> anyhow::Result<&Login> {
        self.shared(1)
    }

    /// One whose role is a superuser.
    pub fn chief(&self) -> anyhow::Result<&Login> {
        self.shared(2)
    }

    /// A raw client, connected through the port, that has sent nothing yet.
    pub fn connect(&self) -> anyhow::Result<Wire> {
        Wire::connect_tcp(self.router()?.address())
    }

    /// A raw client, logged in through the port.
    pub fn log_in(&self, login: &Login) -> anyhow::Result<Wire> {
        let mut wire = self.connect()?;
        wire.log_in(login)?;
        Ok(wire)
    }

    /// The same, once it was answered and `pgs sessions` names this stage's path: a client that
    /// sends its end earlier may have ended before its session came to the kernel.
    pub fn log_in_settled(&self, login: &Login) -> anyhow::Result<Wire> {
        let mut wire = self.log_in(login)?;
        let answer = wire.query_value("select 'settled'")?;
        ensure!(answer == "settled", "{answer}");
        let address = wire.local_address()?.to_string();
        let sessions = self.router()?.sessions(&login.user)?;
        let session = sessions
            .iter()
            .find(|session| session["client"] == *address);
        let session = session.with_context(|| format!("{address} is not in {sessions:?}"))?;
        ensure!(session["path"] == self.path.as_str(), "{session}");
        Ok(wire)
    }

    /// Takes everything down. Scenarios must have ended.
    pub fn tear_down(&mut self) {
        let Some(Ok(installation)) = self.installation.0.get() else {
            return;
        };
        for (id, _, tenant) in &self.tenants {
            if let Some(Ok(_)) = tenant.0.get() {
                tenant::remove(installation, id);
            }
        }
        self.installation = Once::new();
    }

    fn shared(&self, index: usize) -> anyhow::Result<&Login> {
        let (id, arguments, tenant) = &self.tenants[index];
        let installation = self.installation()?;
        tenant.get(|| tenant::create(installation, id, arguments))
    }
}

/// For what goes wrong while things are taken down, where no error can be returned.
pub fn warn(message: &str) {
    // Nothing can be done about a closed standard error.
    let _ignored = writeln!(std::io::stderr(), "warning: {message}");
}
