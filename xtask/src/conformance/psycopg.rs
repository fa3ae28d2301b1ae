//! psycopg 3, driven by SQLAlchemy's tests: psycopg's own are in none of its packages.

use super::endpoint::Endpoint;
use super::outcome::{Tests, Verdict};
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant, Wanted};
use super::{fetch, program};
use crate::process;
use crate::report::Step;
use anyhow::{Context, Result};
use std::fs;
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
pub(super) struct Psycopg {
    python: PathBuf,
    source: PathBuf,
}

impl Psycopg {
    pub(super) fn prepare() -> Result<Self> {
        let step = Step::new("psycopg and SQLAlchemy");
        let directory = fetch::scratch("psycopg")?;
        let python = environment_with_driver(&step, &directory)?;
        let source = directory.join("source");
        let mut download = Command::new(&python);
        download
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                ":all:",
            ])
            .arg(format!("sqlalchemy=={SQLALCHEMY_VERSION}"))
            .arg("--dest")
            .arg(&directory);
        let archive = directory.join(format!("sqlalchemy-{SQLALCHEMY_VERSION}.tar.gz"));
        if !archive.exists() {
            process::followed(&step, &mut download)?;
        }
        fetch::unpack(&archive, &source)?;
        let mut install = Command::new(&python);
        install
            .args(["-m", "pip", "install", "--quiet", "pytest", "greenlet"])
            .args([
                "typing-extensions",
                &format!("sqlalchemy=={SQLALCHEMY_VERSION}"),
            ]);
        process::followed(&step, &mut install)?;
        step.done(format_args!("{PSYCOPG}, SQLAlchemy {SQLALCHEMY_VERSION}"));
        Ok(Self { python, source })
    }
}

impl Suite for Psycopg {
    fn facts(&self) -> Result<Facts> {
        Ok(Facts {
            client: driver_version(&self.python)?,
            tests: format!(
                "SQLAlchemy {SQLALCHEMY_VERSION}'s: test_suite, dialect/postgresql, \
                 synchronous; test_suite again, asynchronous"
            ),
            notes: vec![
                "psycopg's own tests are in none of its packages, and the source package of the \
                 distribution could not be had from the mirror."
                    .to_owned(),
                "Many of these tests compile SQL and ask no server; tests that skip themselves are \
                 not counted."
                    .to_owned(),
                "Those of two-phase commit fail where the server has \
                 `max_prepared_transactions = 0`, its default."
                    .to_owned(),
            ],
        })
    }

    fn tenant(&self) -> Wanted {
        Wanted {
            id: TENANT,
            image: None,
        }
    }

    fn furnish(&self, tenant: &Tenant<'_>) -> Result<()> {
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
            let log = log.with_file_name(format!(
                "{}-{name}.txt",
                log.file_stem()
                    .context("a log without a name")?
                    .to_string_lossy()
            ));
            let port = endpoint.port();
            let uri = format!("{driver}://{TENANT}:{PASSWORD}@127.0.0.1:{port}/{TENANT}");
            let mut pytest = Command::new(&self.python);
            pytest
                .current_dir(&self.source)
                .args([
                    "-m",
                    "pytest",
                    "-p",
                    "no:cacheprovider",
                    "-q",
                    "-rA",
                    "--tb=short",
                ])
                .args(["--dburi", &uri])
                .args(paths);
            let text =
                program::logged(&log, || program::run(step, &pytest, &log, LIMIT).map(drop))?;
            let found = text.lines().filter_map(result);
            tests.extend(found.map(|(test, verdict)| (format!("{name}: {test}"), verdict)));
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
    let directory = &directory.join("python");
    let python = directory.join("bin/python");
    if !python.exists() {
        step.doing("making a Python environment");
        fs::create_dir_all(directory)?;
        let mut make = Command::new("python3");
        process::output(make.args(["-m", "venv"]).arg(directory)).context(
            "a Python environment cannot be made; `sudo apt-get install python3-venv` may help",
        )?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", PSYCOPG]);
    process::followed(step, &mut install)?;
    Ok(python)
}

/// `PASSED test/engine/test_x.py::Class::test`, of pytest's summary.
fn result(line: &str) -> Option<(String, Verdict)> {
    let (word, rest) = line.split_once(' ')?;
    let verdict = match word {
        "PASSED" | "XFAIL" => Verdict::Passed,
        "FAILED" | "ERROR" | "XPASS" => Verdict::Failed,
        _ => return None,
    };
    // What went wrong follows the name.
    let name = rest.split(" - ").next().unwrap_or(rest);
    name.starts_with("test/")
        .then(|| (name.to_owned(), verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_pytest_is_read() {
        let line = "FAILED test/engine/test_x.py::A::b - AssertionError: PASSED - no";
        let name = "test/engine/test_x.py::A::b".to_owned();
        assert_eq!(result(line), Some((name.clone(), Verdict::Failed)));
        assert_eq!(
            result(&format!("PASSED {name}")),
            Some((name, Verdict::Passed))
        );
        assert_eq!(result("12 passed in 3s"), None);
    }
}
