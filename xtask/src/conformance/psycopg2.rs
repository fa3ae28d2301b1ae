//! psycopg2, with its own tests: its source archive has them, which psycopg 3's has not.

use super::endpoint::Endpoint;
use super::outcome::Tests;
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant};
use super::{encryption, fetch, program, python};
use crate::process;
use crate::report::Step;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PACKAGE: &str = "psycopg2-binary";
const VERSION: &str = "2.9.13";
const TENANT: &str = "psycopg2";
const LIMIT: Duration = Duration::from_secs(600);
/// Each test twice: as it is, and with every wait of libpq going through psycopg2's callback.
const RUNS: [(&str, bool); 2] = [("plain", false), ("green", true)];

/// An interpreter with the driver, and its source.
pub(super) struct Psycopg2 {
    python: PathBuf,
    source: PathBuf,
}

impl Psycopg2 {
    pub(super) fn prepare() -> Result<Self> {
        let step = Step::new("psycopg2");
        let directory = fetch::scratch("psycopg2")?;
        let packages = ["pytest", &format!("{PACKAGE}=={VERSION}")];
        let python = python::environment(&step, &directory, &packages)?;
        let source = python::source_archive(&step, &python, &directory, PACKAGE, VERSION)?;
        anyhow::ensure!(
            source.join("tests").is_dir(),
            "{PACKAGE} {VERSION} comes without its tests"
        );
        step.done(format_args!("{PACKAGE} {VERSION}"));
        Ok(Self { python, source })
    }
}

impl Suite for Psycopg2 {
    fn facts(&self) -> Result<Facts> {
        let say = "import psycopg2; print('psycopg2', psycopg2.__version__.split()[0], \
                   'with libpq', '%d.%d' % divmod(psycopg2.__libpq_version__, 10000))";
        Ok(Facts {
            client: process::output(Command::new(&self.python).args(["-c", say]))?,
            tests: "its own, each twice: as it is, and with its wait callback (`green`)".to_owned(),
            notes: vec![
                "The server has `max_prepared_transactions = 10` and `wal_level = logical`, so \
                 that two-phase commit and replication are tested; tests that skip themselves are \
                 not counted."
                    .to_owned(),
                "`test_pgconn_ptr` fails, without pgs too; why was not looked into.".to_owned(),
            ],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn furnish(&self, tenant: &Tenant<'_>) -> Result<()> {
        tenant.configure(&["max_prepared_transactions = 10", "wal_level = logical"])?;
        tenant.sql(TENANT, &["CREATE EXTENSION hstore"]).map(drop)
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        let mut tests = Tests::new();
        for (name, green) in RUNS {
            let log = log.with_extension(format!("{name}.txt"));
            let mut pytest = python::pytest(&self.python, &self.source);
            pytest
                .arg("tests")
                .env("PSYCOPG2_TESTDB", TENANT)
                .env("PSYCOPG2_TESTDB_HOST", "127.0.0.1")
                .env("PSYCOPG2_TESTDB_PORT", endpoint.port().to_string())
                .env("PSYCOPG2_TESTDB_USER", TENANT)
                .env("PSYCOPG2_TESTDB_PASSWORD", PASSWORD)
                // Empty: replication is tried on the same.
                .env("PSYCOPG2_TEST_REPL_DSN", "");
            encryption::tell_libpq(&mut pytest, endpoint.root_certificate());
            if green {
                pytest.env("PSYCOPG2_TEST_GREEN", "1");
            }
            let text = program::printed(step, &pytest, &log, LIMIT)?;
            tests.extend(python::results(name, &text));
        }
        Ok(tests)
    }
}
