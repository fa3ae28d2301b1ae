//! sqlx's own tests for PostgreSQL, as its crate brings them. Their helper crate is not published;
//! `conformance/sqlx-test` stands in for it.

use super::endpoint::Endpoint;
use super::outcome::Tests;
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant};
use super::{encryption, fetch, libtest, program};
use crate::report::Step;
use crate::workspace;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const VERSION: &str = "0.8.6";
/// Not `sqlx`: one of the tests makes a role of that name.
const TENANT: &str = "sqlxrs";
const LIMIT: Duration = Duration::from_secs(600);
const BUILD_LIMIT: Duration = Duration::from_secs(2400);
/// All for PostgreSQL that use no certificates and no special build.
const TESTS: [&str; 9] = [
    "postgres",
    "postgres-macros",
    "postgres-derives",
    "postgres-query-builder",
    "postgres-types",
    "postgres-describe",
    "postgres-error",
    "postgres-test-attr",
    "postgres-migrate",
];
const FEATURES: &str = "postgres,macros,migrate,any,_unstable-all-types,runtime-tokio";
/// Beside them where it connects over TLS.
const TLS_FEATURE: &str = "tls-rustls-ring-webpki";

/// Its source with the helper crate in it.
pub(super) struct Sqlx {
    source: PathBuf,
}

impl Sqlx {
    pub(super) fn prepare() -> Result<Self> {
        let step = Step::new(format!("sqlx {VERSION}"));
        let source = fetch::crate_source(&step, "sqlx", VERSION)?;
        let helper = source.join("sqlx-test");
        fs::create_dir_all(&helper)?;
        let own = workspace::root().join("conformance/sqlx-test");
        fs::copy(own.join("lib.rs"), helper.join("lib.rs"))?;
        fs::copy(own.join("manifest.toml"), helper.join("Cargo.toml"))?;
        let manifest = source.join("Cargo.toml");
        let dependency = "\n[dev-dependencies.sqlx-test]\npath = \"sqlx-test\"\n";
        let text = fs::read_to_string(&manifest)?;
        // Before the table that ends the file.
        fs::write(
            &manifest,
            text.replace("\n[workspace]\n", &format!("{dependency}\n[workspace]\n")),
        )?;
        step.done("its source, with the helper crate");
        Ok(Self { source })
    }

    fn cargo(&self, endpoint: &Endpoint<'_>) -> Command {
        let port = endpoint.port();
        let root = endpoint.root_certificate();
        let parameters = encryption::parameters(root);
        let mut features = FEATURES.to_owned();
        if root.is_some() {
            features = format!("{features},{TLS_FEATURE}");
        }
        let mut cargo = crate::process::cargo();
        cargo
            .current_dir(&self.source)
            .env("CARGO_TARGET_DIR", self.source.with_file_name("build"))
            .env(
                "DATABASE_URL",
                format!("postgres://{TENANT}:{PASSWORD}@127.0.0.1:{port}/{TENANT}{parameters}"),
            )
            .args([
                "test",
                "--no-fail-fast",
                "--no-default-features",
                "--features",
                &features,
            ]);
        for test in TESTS {
            cargo.args(["--test", test]);
        }
        cargo
    }
}

impl Suite for Sqlx {
    fn facts(&self) -> Result<Facts> {
        Ok(Facts {
            client: format!("sqlx {VERSION}"),
            tests: format!("its own: {}", TESTS.join(", ")),
            notes: vec![
                "The helper crate that these tests use is not published; one of pgs's own stands \
                 in for it."
                    .to_owned(),
                format!("Over TLS it is built with the feature `{TLS_FEATURE}`, else without."),
            ],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn furnish(&self, tenant: &Tenant<'_>) -> Result<()> {
        let setup = fs::read_to_string(self.source.join("tests/postgres/setup.sql"))?;
        tenant
            .sql(TENANT, &[&format!("SET ROLE {TENANT}"), &setup])
            .map(drop)
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        // Built here: some macros ask the database while they are compiled.
        let mut build = self.cargo(endpoint);
        let build_log = log.with_extension("build.txt");
        program::built(step, build.arg("--no-run"), &build_log, BUILD_LIMIT)?;
        let cargo = self.cargo(endpoint);
        let text = program::printed(step, &cargo, log, LIMIT)?;
        Ok(libtest::parse(&text))
    }
}
