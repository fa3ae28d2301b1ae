//! psycopg 3, with its own tests. They are in none of its packages; they are in its source, which
//! distributions have a package of.

use super::endpoint::Endpoint;
use super::outcome::{Tests, Verdict};
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant};
use super::{encryption, fetch, program, python};
use crate::process;
use crate::report::Step;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Names an archive of its source, where the machine's mirror has none.
const SOURCE_VARIABLE: &str = "PGS_PSYCOPG_SOURCE";
const SOURCE_PACKAGE: &str = "psycopg3";
const TENANT: &str = "psycopg";
const LIMIT: Duration = Duration::from_secs(1200);
/// One test; none takes as long as this where nothing hangs.
const TEST_SECONDS: &str = "60";
/// The driver's own words for tests that "can fail on cheese hardware" and that "may fail
/// unpredictably" (tests/conftest.py); its own CI leaves the former out on some machines.
const UNSTEADY: &str = "timing or flakey";
/// How often one of those is run that fails every time: bounds of some milliseconds on a machine
/// that runs the server and the tests on the same few processors.
const UNSTEADY_RUNS_MAX: u32 = 5;
/// Its tests' proxy passes bytes on, TLS or not; what connects to it has to be told as all others
/// are (tests/fix_proxy.py).
const PROXY_TLS: (&str, &str) = (
    r#"cdict["sslmode"] = "disable""#,
    r#"cdict["sslmode"] = os.environ.get("PGSSLMODE", "disable")"#,
);
/// What its `setup.py` asks for with `[test]`, without what checks types; and what ends a test that
/// hangs.
const PACKAGES: [&str; 4] = [
    "pytest >= 6.2.5, < 8",
    "anyio >= 3.6.2, < 4",
    "pproxy >= 2.7",
    "pytest-timeout",
];

/// An interpreter with the driver, and its source.
pub(super) struct Psycopg {
    python: PathBuf,
    source: PathBuf,
}

impl Psycopg {
    pub(super) fn prepare() -> Result<Self> {
        let step = Step::new("psycopg");
        let directory = fetch::scratch("psycopg")?;
        let source = source(&step, &directory)?;
        fetch::replace(&source.join("tests"), "py", &[PROXY_TLS])?;
        let text = fs::read_to_string(source.join("psycopg/psycopg/version.py"))
            .context("read the version of psycopg in its source")?;
        let version = version(&text).context("psycopg's source does not say its version")?;
        let driver = format!("psycopg[binary]=={version}");
        // Its pool is a package of its own, whose source and tests are beside the driver's.
        let pool = source.join("psycopg_pool");
        let pool = pool
            .to_str()
            .context("the path of the source is no UTF-8")?;
        let packages: Vec<&str> = PACKAGES.into_iter().chain([&*driver, pool]).collect();
        let python = python::environment(&step, &directory, &packages)?;
        step.done(driver);
        Ok(Self { python, source })
    }
}

impl Psycopg {
    /// All its tests, against what answers there.
    fn pytest(&self, endpoint: &Endpoint<'_>, cache: &Path) -> Result<Command> {
        let port = endpoint.port();
        let server = format!("host=127.0.0.1 port={port} user={TENANT} dbname={TENANT}");
        let mut pytest = Command::new(&self.python);
        pytest
            .current_dir(&self.source)
            .env("PATH", self.path()?)
            .args(["-m", "pytest", "-q", "-rA", "--tb=short"])
            .args(["--timeout", TEST_SECONDS])
            .arg("-o")
            .arg(format!("cache_dir={}", cache.display()))
            .arg("tests")
            .args(["--test-dsn", &format!("{server} password={PASSWORD}")]);
        encryption::tell_libpq(&mut pytest, endpoint.root_certificate());
        Ok(pytest)
    }

    /// With the programs of its environment first: tests start the proxy `pproxy` by its name.
    fn path(&self) -> Result<OsString> {
        let programs = self.python.parent().map(Path::to_owned);
        let others = std::env::var_os("PATH").unwrap_or_default();
        let all = programs.into_iter().chain(std::env::split_paths(&others));
        std::env::join_paths(all).context("PATH cannot be extended")
    }
}

/// Its source, unpacked.
fn source(step: &Step, directory: &Path) -> Result<PathBuf> {
    if let Some(archive) = std::env::var_os(SOURCE_VARIABLE) {
        let source = directory.join("source");
        fetch::unpack(Path::new(&archive), &source)
            .with_context(|| format!("unpack what {SOURCE_VARIABLE} names"))?;
        return Ok(source);
    }
    let found = fetch::debian_source(step, SOURCE_PACKAGE, |version| version.starts_with("3."));
    let (source, _) = found.with_context(|| {
        format!(
            "psycopg's tests are in its source only; name an archive of it, as any distribution \
             has it in its source package {SOURCE_PACKAGE}, by {SOURCE_VARIABLE}=FILE"
        )
    })?;
    Ok(source)
}

/// Where its source is from: of the mirror, or named.
fn source_note(named: bool) -> String {
    let package = format!("Its source is a distribution's, of its package {SOURCE_PACKAGE}");
    if named {
        format!("{package}; for this run an archive of it was named by {SOURCE_VARIABLE}.")
    } else {
        format!("{package}.")
    }
}

/// `__version__ = "3.1.17"`.
fn version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    line.split('"').nth(1)
}

impl Suite for Psycopg {
    fn facts(&self) -> Result<Facts> {
        let say = "import psycopg; v = psycopg.pq.version(); print('psycopg', \
                   psycopg.__version__, 'with libpq', '%d.%d' % divmod(v, 10000))";
        Ok(Facts {
            client: process::output(Command::new(&self.python).args(["-c", say]))?,
            tests: "its own and its pool's, of its source, but for those that check types"
                .to_owned(),
            notes: vec![
                source_note(std::env::var_os(SOURCE_VARIABLE).is_some()),
                "The server has `max_prepared_transactions = 10`, for the tests of two-phase \
                 commit; tests that skip themselves are not counted."
                    .to_owned(),
            ],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn furnish(&self, tenant: &Tenant<'_>) -> Result<()> {
        tenant.configure(&["max_prepared_transactions = 10"])?;
        tenant.sql(TENANT, &["CREATE EXTENSION hstore"]).map(drop)
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        // It holds what an earlier run died of, after which nothing is run.
        let cache = log.with_extension("cache");
        if cache.exists() {
            fs::remove_dir_all(&cache)?;
        }
        let mut pytest = self.pytest(endpoint, &cache)?;
        pytest.args(["-m", "not mypy"]);
        let text = program::printed(step, &pytest, log, LIMIT)?;
        let mut tests = python::results("own", &text);
        let mut failed = any_failed(&tests);
        for number in 2..=UNSTEADY_RUNS_MAX {
            if !failed {
                break;
            }
            let mut pytest = self.pytest(endpoint, &cache)?;
            // Without one that failed, pytest would run all of them again.
            pytest.args(["-m", UNSTEADY, "--last-failed"]);
            pytest.args(["--last-failed-no-failures", "none"]);
            let log = log.with_extension(format!("run-{number}.txt"));
            let again = python::results("own", &program::printed(step, &pytest, &log, LIMIT)?);
            failed = any_failed(&again);
            tests.extend(again);
        }
        Ok(tests)
    }
}

fn any_failed(tests: &Tests) -> bool {
    tests.values().any(|verdict| *verdict == Verdict::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_source() {
        let text = "# comment\nimport x\n__version__ = \"3.1.17\"\n";
        assert_eq!(version(text), Some("3.1.17"));
        assert_eq!(version("__all__ = []"), None);
    }
}
