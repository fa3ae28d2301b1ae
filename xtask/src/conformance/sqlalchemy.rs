//! psycopg 3 and the libpq 18 inside it, driven by SQLAlchemy's tests.

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

const PSYCOPG: &str = "psycopg[binary]==3.3.9";
const SQLALCHEMY_VERSION: &str = "2.1.9";
const TENANT: &str = "sqlalchemy";
const LIMIT: Duration = Duration::from_secs(1200);
/// What is run: a name, the driver, and the tests of SQLAlchemy that talk to a server most.
const RUNS: [(&str, &str, &[&str]); 2] = [
    (
        "sync",
        "postgresql+psycopg",
        &["test/dialect/test_suite.py", "test/dialect/postgresql"],
    ),
    (
        "async",
        "postgresql+psycopg_async",
        &["test/dialect/test_suite.py"],
    ),
];

/// An interpreter with the driver, and SQLAlchemy's source.
pub(super) struct Sqlalchemy {
    python: PathBuf,
    source: PathBuf,
}

impl Sqlalchemy {
    pub(super) fn prepare() -> Result<Self> {
        let step = Step::new("psycopg and SQLAlchemy");
        let directory = fetch::scratch("sqlalchemy")?;
        let packages = [
            PSYCOPG,
            "pytest",
            "greenlet",
            "typing-extensions",
            &format!("sqlalchemy=={SQLALCHEMY_VERSION}"),
        ];
        let python = python::environment(&step, &directory, &packages)?;
        let source =
            python::source_archive(&step, &python, &directory, "sqlalchemy", SQLALCHEMY_VERSION)?;
        step.done(format_args!("{PSYCOPG}, SQLAlchemy {SQLALCHEMY_VERSION}"));
        Ok(Self { python, source })
    }
}

impl Suite for Sqlalchemy {
    fn facts(&self) -> Result<Facts> {
        Ok(Facts {
            client: driver_version(&self.python)?,
            tests: format!(
                "SQLAlchemy {SQLALCHEMY_VERSION}'s: test_suite, dialect/postgresql, \
                 synchronous; test_suite again, asynchronous"
            ),
            notes: vec![
                "Many of these tests compile SQL and ask no server; tests that skip themselves are \
                 not counted."
                    .to_owned(),
                "The server has `max_prepared_transactions = 10`, for the tests of two-phase \
                 commit."
                    .to_owned(),
            ],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn furnish(&self, tenant: &Tenant<'_>) -> Result<()> {
        tenant.configure(&["max_prepared_transactions = 10"])?;
        let make = [
            "CREATE SCHEMA test_schema AUTHORIZATION sqlalchemy",
            "CREATE SCHEMA test_schema_2 AUTHORIZATION sqlalchemy",
            "CREATE EXTENSION hstore",
            "CREATE EXTENSION citext",
        ];
        tenant.sql(TENANT, &make).map(drop)
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        let mut tests = Tests::new();
        for (name, driver, paths) in RUNS {
            let log = log.with_extension(format!("{name}.txt"));
            let port = endpoint.port();
            let uri = format!("{driver}://{TENANT}:{PASSWORD}@127.0.0.1:{port}/{TENANT}");
            let mut pytest = python::pytest(&self.python, &self.source);
            pytest.args(["--dburi", &uri]).args(paths);
            encryption::tell_libpq(&mut pytest, endpoint.root_certificate());
            let text = program::printed(step, &pytest, &log, LIMIT)?;
            tests.extend(python::results(name, &text));
        }
        Ok(tests)
    }
}

/// What the driver says of itself.
pub(super) fn driver_version(python: &Path) -> Result<String> {
    let say = "import psycopg; print('psycopg', psycopg.__version__, \
               'with libpq', psycopg.pq.version_pretty(psycopg.pq.version()))";
    process::output(Command::new(python).args(["-c", say]))
}

/// A virtual environment of its own, with the driver in it.
pub(super) fn environment_with_driver(step: &Step, directory: &Path) -> Result<PathBuf> {
    python::environment(step, directory, &[PSYCOPG])
}
