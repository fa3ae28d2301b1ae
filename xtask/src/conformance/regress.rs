//! PostgreSQL's own tests: `src/test/regress` and `src/test/isolation` of the source that the
//! server was built from, run by the server package's own `pg_regress`.
//!
//! Some tests have the server read and write files that the client then reads, so that both must
//! see the same ones: the client runs in a container that shares the tenant's volume, and the tests
//! lie in an image made from the tenants' image.

use super::compare::Due;
use super::endpoint::{Endpoint, Subject};
use super::ground::Ground;
use super::outcome::{Tests, Verdict};
use super::suite::{Facts, Suite};
use super::tenant::Tenant;
use super::{encryption, fetch, program};
use crate::apt::{Elsewhere, Mirror};
use crate::process;
use crate::report::{self, Step};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const IMAGE: &str = "pgs/conformance-regress:18";
/// Also the name of the database that the regression tests make, and of the role.
const TENANT: &str = "regression";
/// Some tests expect the role that the server was made with, not just any superuser; but that one
/// cannot log in through pgs. So it gets the tenant's name, from a third role, for none can rename
/// itself.
const SWAP_NAMES: [(&str, &str); 3] = [
    ("postgres", "CREATE ROLE swapper SUPERUSER LOGIN"),
    (
        "swapper",
        "ALTER ROLE regression RENAME TO regression_tenant",
    ),
    ("swapper", "ALTER ROLE postgres RENAME TO regression"),
];
/// Where the tests lie in the image.
const TESTS: &str = "/opt/regress";
/// Where they write; both containers have it.
const OUTPUT: &str = "/var/lib/postgresql/regress";
/// Where the client's container has the authority's certificate.
const ROOT_CERTIFICATE: &str = "/opt/authority.crt";
const SERVER: &str = "/usr/lib/postgresql/18/lib";
/// The package that carries what the tests load into the server.
const LIBRARY_PACKAGE: &str = "postgresql-server-dev-18";
const LIMIT: Duration = Duration::from_secs(1800);

/// One of PostgreSQL's suites.
struct Part {
    name: &'static str,
    runner: &'static str,
    schedule: &'static str,
    /// Named in some of its tests.
    database: &'static str,
}

const PARTS: [Part; 2] = [
    Part {
        name: "regress",
        runner: "pgxs/src/test/regress/pg_regress",
        schedule: "parallel_schedule",
        database: "regression",
    },
    Part {
        name: "isolation",
        runner: "pgxs/src/test/isolation/pg_isolation_regress",
        schedule: "isolation_schedule",
        database: "isolation_regression",
    },
];

/// Ends a session, and has in its expected output what libpq says of that without TLS.
const OTHER_WORDS: &str = "isolation/temp-schema-cleanup";

/// The image with the tests in it.
pub(super) struct Regress {
    version: String,
}

impl Regress {
    pub(super) fn prepare(ground: &Ground) -> Result<Self> {
        let step = Step::new("tests of PostgreSQL");
        let version = package_version(ground.image())?;
        let upstream = version.split('-').next().unwrap_or(&version).to_owned();
        let same = |found: &str| found.split('-').next() == Some(&upstream);
        let (source, _) = fetch::debian_source(&step, "postgresql-18", same)?;
        let library = library(&step, &upstream)?;
        step.doing("making the image");
        make_image(ground, &source, &library)?;
        step.done(format_args!("{upstream}, in the image {IMAGE}"));
        Ok(Self { version: upstream })
    }
}

impl Drop for Regress {
    fn drop(&mut self) {
        // Only this run's containers use it, and they are gone.
        if let Err(error) = process::output(Command::new("docker").args(["image", "rm", IMAGE])) {
            report::line(format_args!("  ✗ remove the image {IMAGE}: {error:#}"));
        }
    }
}

impl Suite for Regress {
    fn facts(&self) -> Result<Facts> {
        let psql = process::output(Command::new("docker").args([
            "run",
            "--rm",
            "--network",
            "none",
            IMAGE,
            "psql",
            "--version",
        ]))?;
        Ok(Facts {
            client: psql,
            tests: format!(
                "PostgreSQL {}'s own: parallel_schedule of src/test/regress and \
                 isolation_schedule of src/test/isolation",
                self.version
            ),
            notes: vec![
                "The role is the one that the server was made with, renamed to the tenant's, and \
                 the access rule is `trust`, as these tests expect; `options` names the tenant \
                 where they use databases and roles of their own."
                    .to_owned(),
            ],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn image(&self) -> Option<&'static str> {
        Some(IMAGE)
    }

    fn furnish(&self, tenant: &Tenant<'_>) -> Result<()> {
        tenant.access_rules("local all all trust\nlocal replication all trust")?;
        for (role, statement) in SWAP_NAMES {
            let mut psql = tenant.exec();
            psql.args(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
            process::output(psql.args(["-U", role, "-c", statement]))?;
        }
        for Part { name, .. } in &PARTS {
            process::output(
                tenant
                    .exec()
                    .args(["mkdir", "-p", &format!("{OUTPUT}/{name}")]),
            )?;
        }
        Ok(())
    }

    fn instead(&self, subject: Subject, test: &str) -> Option<Due> {
        (subject == Subject::Tls && test == OTHER_WORDS).then(|| Due {
            test: test.to_owned(),
            verdict: Verdict::Failed,
            reason: "Over TLS it fails, with PostgreSQL's own as with that of pgs: it expects \
                     libpq's words for a connection that the server has closed, and over TLS libpq \
                     has others (`SSL connection has been closed unexpectedly`).",
        })
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        let mut tests = Tests::new();
        for part in &PARTS {
            let log = log.with_extension(format!("{}.txt", part.name));
            let output = format!("{OUTPUT}/{}", part.name);
            let text = program::logged(&log, || {
                let runner = part.command(tenant, endpoint, &output);
                program::run(step, &runner, &log, LIMIT)?;
                // What a failed test printed instead of what was expected.
                let mut show = tenant.exec();
                let differences = format!("cat {output}/regression.diffs || true");
                show.args(["sh", "-c", &differences]);
                program::run(step, &show, &log, LIMIT).map(drop)
            })?;
            let found = text.lines().filter_map(result);
            tests.extend(found.map(|(test, verdict)| (format!("{}/{test}", part.name), verdict)));
        }
        Ok(tests)
    }
}

impl Part {
    fn command(&self, tenant: &Tenant<'_>, endpoint: &Endpoint<'_>, output: &str) -> Command {
        let Self {
            name,
            runner,
            schedule,
            database,
        } = self;
        let port = endpoint.port();
        let root = endpoint.root_certificate();
        let mut docker = client(tenant, &format!("{SERVER}/{runner}"), root);
        docker
            .args(["--host=127.0.0.1", "--encoding=UTF8", "--no-locale"])
            .args([
                "--bindir=/usr/lib/postgresql/18/bin",
                "--max-concurrent-tests=20",
            ])
            .arg(format!("--port={port}"))
            .arg(format!("--user={TENANT}"))
            .arg(format!("--dbname={database}"))
            .arg(format!("--inputdir={TESTS}/{name}"))
            .arg(format!("--expecteddir={TESTS}/{name}"))
            .arg(format!("--schedule={TESTS}/{name}/{schedule}"))
            .arg(format!("--outputdir={output}"))
            .arg(format!("--dlpath={SERVER}"));
        docker
    }
}

/// A container beside the tenant's, on this machine's network, with the tenant's volume. pg_regress
/// leaves libpq's settings for TLS to psql, unless it makes the server itself.
fn client(tenant: &Tenant<'_>, program: &str, root: Option<&Path>) -> Command {
    let mut docker = Command::new("docker");
    docker
        .args(["run", "--rm", "--network", "host", "--user", "postgres"])
        .args(["--volumes-from", &tenant.container])
        .args(["--env", &format!("PGOPTIONS=-c pgs.tenant={TENANT}")]);
    if let Some(root) = root {
        // Docker takes the values from its own environment.
        docker.args(["--env", "PGSSLMODE", "--env", "PGSSLROOTCERT"]);
        encryption::tell_libpq(&mut docker, Some(Path::new(ROOT_CERTIFICATE)));
        docker.args([
            "--volume",
            &format!("{}:{ROOT_CERTIFICATE}:ro", root.display()),
        ]);
    }
    docker.args(["--entrypoint", program, IMAGE]);
    docker
}

/// `ok 12        + boolean          45 ms`, as pg_regress prints since PostgreSQL 16.
fn result(line: &str) -> Option<(&str, Verdict)> {
    let (verdict, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (Verdict::Failed, rest),
        None => (Verdict::Passed, line.strip_prefix("ok ")?),
    };
    let mut words = rest.split_whitespace();
    words.next()?.parse::<u32>().ok()?;
    let mark = words.next()?;
    let name = words.next()?;
    matches!(mark, "-" | "+").then_some((name, verdict))
}

/// `18.6-3`, as the image says.
fn package_version(image: &str) -> Result<String> {
    let format = "{{range .Config.Env}}{{println .}}{{end}}";
    let environment = process::output(
        Command::new("docker").args(["image", "inspect", "--format", format, image]),
    )?;
    environment
        .lines()
        .find_map(|line| line.strip_prefix("PG_VERSION="))
        .map(str::to_owned)
        .with_context(|| format!("the image {image} says no PG_VERSION"))
}

/// `regress.so`, out of the package that was built with the server.
fn library(step: &Step, upstream: &str) -> Result<PathBuf> {
    let directory = fetch::scratch("regress")?;
    let unpacked = directory.join("library");
    let library = unpacked.join("usr/lib/postgresql/18/lib/regress.so");
    let marker = directory.join("library-version");
    if library.exists() && fs::read_to_string(&marker).is_ok_and(|version| version == upstream) {
        return Ok(library);
    }
    let mirror = Mirror::of_this_machine(step)?;
    for suite in fetch::DEBIAN_SUITES {
        step.doing(format_args!("looking for {LIBRARY_PACKAGE} in {suite}"));
        let at = directory.join("apt").join(suite);
        let Ok(apt) = Elsewhere::fetch(step, &at, &mirror, &[suite]) else {
            continue;
        };
        let versions = apt.versions(LIBRARY_PACKAGE)?;
        let same = |found: &&String| found.split('-').next() == Some(upstream);
        let Some(version) = versions.iter().find(same) else {
            continue;
        };
        let archive = apt.download(step, LIBRARY_PACKAGE, version)?;
        process::output(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(archive)
                .arg(&unpacked),
        )?;
        fs::write(&marker, upstream)?;
        return Ok(library);
    }
    bail!("no suite of the machine's mirror has {LIBRARY_PACKAGE} {upstream}")
}

/// The tenants' image, and in it the tests and what they load.
fn make_image(ground: &Ground, source: &Path, library: &Path) -> Result<()> {
    let container = ground.container("regress-image");
    let docker = |arguments: &[&str]| process::output(Command::new("docker").args(arguments));
    docker(&["create", "--name", &container, ground.image()])?;
    let tests = source.join("src/test");
    let staged = fetch::scratch("regress")?.join("staged");
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    fs::create_dir_all(&staged)?;
    for Part { name, .. } in &PARTS {
        process::output(
            Command::new("cp")
                .arg("-r")
                .arg(tests.join(name))
                .arg(&staged),
        )?;
    }
    let text = |path: &Path| path.display().to_string();
    docker(&["cp", &text(&staged), &format!("{container}:{TESTS}")])?;
    docker(&[
        "cp",
        &text(library),
        &format!("{container}:{SERVER}/regress.so"),
    ])?;
    docker(&["commit", &container, IMAGE])?;
    docker(&["rm", &container]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_pg_regress_are_read() {
        let line = "ok 2         + boolean                                    65 ms";
        assert_eq!(result(line), Some(("boolean", Verdict::Passed)));
        let line = "not ok 213   - psql                                      965 ms";
        assert_eq!(result(line), Some(("psql", Verdict::Failed)));
        assert_eq!(result("# parallel group (20 tests):  char"), None);
        assert_eq!(result("1..222"), None);
    }
}
