//! tokio-postgres' own tests, as its crate brings them.

use super::endpoint::Endpoint;
use super::ground::Ground;
use super::outcome::Tests;
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant};
use super::{fetch, libtest, program};
use crate::report::Step;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const VERSION: &str = "0.7.18";
const TENANT: &str = "tokio";
const LIMIT: Duration = Duration::from_secs(300);
const BUILD_LIMIT: Duration = Duration::from_secs(1200);
/// Needs a server with a Unix socket in `/var/run/postgresql`, where pgs has none.
const UNIX_SOCKET: &str = "runtime::unix_socket";

/// Its source, with the tests pointed at the suite's port and tenant.
pub(super) struct TokioPostgres {
    source: PathBuf,
}

impl TokioPostgres {
    pub(super) fn prepare(ground: &Ground) -> Result<Self> {
        let step = Step::new(format!("tokio-postgres {VERSION}"));
        let source = fetch::crate_source(&step, "tokio-postgres", VERSION)?;
        // They name server, role and database in their sources.
        let port = ground.port.to_string();
        fetch::replace(
            &source.join("tests"),
            "rs",
            &[
                ("5433", &port),
                ("user=postgres", &format!("user={TENANT}")),
                ("dbname=postgres", &format!("dbname={TENANT}")),
            ],
        )?;
        let suite = Self { source };
        step.doing("building its tests");
        let log = ground.log("build");
        let mut build = suite.cargo();
        program::built(&step, build.arg("--no-run"), &log, BUILD_LIMIT)?;
        step.done("its tests are built");
        Ok(suite)
    }

    fn cargo(&self) -> Command {
        let mut cargo = crate::process::cargo();
        cargo
            .current_dir(&self.source)
            .env("CARGO_TARGET_DIR", self.source.with_file_name("build"))
            .args(["test", "--all-features", "--test", "test"]);
        cargo
    }
}

impl Suite for TokioPostgres {
    fn facts(&self) -> Result<Facts> {
        Ok(Facts {
            client: format!("tokio-postgres {VERSION}"),
            tests: "its own, of the crate's directory `tests`, with all features".to_owned(),
            notes: vec![format!(
                "Port, role and database in the tests' sources are replaced by this run's; \
                     `{UNIX_SOCKET}` is left out: it is for a server with a Unix socket."
            )],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn furnish(&self, tenant: &Tenant<'_>) -> Result<()> {
        let role = |name: &str| format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'");
        tenant.sql(
            TENANT,
            &[
                &role("pass_user"),
                &role("scram_user"),
                "SET password_encryption = 'md5'",
                &role("md5_user"),
                "CREATE EXTENSION hstore",
                "CREATE EXTENSION citext",
                "CREATE EXTENSION ltree",
            ],
        )?;
        tenant.access_rules(
            "local all postgres peer\nlocal all pass_user password\nlocal all md5_user md5\n\
             local all scram_user scram-sha-256\nlocal all all trust",
        )
    }

    fn run(
        &self,
        step: &Step,
        _endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        let mut cargo = self.cargo();
        cargo.args(["--", "--skip", UNIX_SOCKET]);
        let text = program::printed(step, &cargo, log, LIMIT)?;
        Ok(libtest::parse(&text))
    }
}
