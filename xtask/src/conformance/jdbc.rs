//! The JDBC driver of Debian's package, driven by a program of pgs's own: the driver's own tests
//! are in none of its packages.

use super::compare::Due;
use super::encryption;
use super::endpoint::{Endpoint, Subject};
use super::outcome::Tests;
use super::program;
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant};
use crate::report::Step;
use crate::{apt, process, workspace};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const TENANT: &str = "jdbc";
const PACKAGE: &str = "libpostgresql-jdbc-java";
/// Where the package puts the driver.
const DRIVER: &str = "/usr/share/java/postgresql.jar";
const LIMIT: Duration = Duration::from_secs(300);

/// What comes over TLS instead of a test without it, and why.
const OVER_TLS: [(&str, &str, &str); 2] = [
    (
        "sslmode disable -> let in",
        "sslmode disable -> 28000",
        "Over TLS it is told that a client must not come without it.",
    ),
    (
        "sslmode require -> 08004",
        "sslmode require -> let in",
        "A driver that insists on TLS gets it; the tenant's server itself has none.",
    ),
];

/// The driver and a Java to run it.
pub(super) struct Jdbc {
    program: PathBuf,
}

impl Jdbc {
    pub(super) fn prepare() -> Result<Self> {
        let step = Step::new("JDBC driver");
        let mut missing = Vec::new();
        if !Path::new(DRIVER).exists() {
            missing.push(PACKAGE);
        }
        // `java File.java` compiles: it takes the whole kit.
        if process::find("javac").is_none() {
            missing.push("default-jdk-headless");
        }
        if !missing.is_empty() {
            if !apt::can_install() {
                bail!(
                    "not installed; run `sudo apt-get install {}`",
                    missing.join(" ")
                );
            }
            apt::install(&step, &missing)?;
        }
        step.done(DRIVER);
        Ok(Self {
            program: workspace::root().join("conformance/jdbc/Conformance.java"),
        })
    }
}

impl Suite for Jdbc {
    fn facts(&self) -> Result<Facts> {
        let version = process::output(Command::new("dpkg-query").args([
            "--show",
            "--showformat",
            "${Version}",
            PACKAGE,
        ]))?;
        let java = process::output(Command::new("java").args(["--version"]))?;
        let java = java.lines().next().unwrap_or_default();
        Ok(Facts {
            client: format!("{PACKAGE} {version} on {java}"),
            tests: "of pgs's own, conformance/jdbc/Conformance.java".to_owned(),
            notes: vec![
                "The driver's own tests are in none of its packages, and the distribution's source \
                 packages (bookworm, trixie, forky, sid) came without their upstream archives \
                 (404)."
                    .to_owned(),
            ],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn instead(&self, subject: Subject, test: &str) -> Option<Due> {
        let (_, through_pgs, reason) = OVER_TLS
            .iter()
            .find(|(without_pgs, _, _)| subject == Subject::Tls && *without_pgs == test)?;
        Some(Due::pass(*through_pgs, reason))
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        let mut java = Command::new("java");
        java.args(["-cp", DRIVER])
            .arg(&self.program)
            .args(["127.0.0.1", &endpoint.port().to_string()])
            .args([TENANT, PASSWORD]);
        if let Some(root) = endpoint.root_certificate() {
            java.arg(encryption::MODE).arg(root);
        }
        let text = program::printed(step, &java, log, LIMIT)?;
        Ok(program::plain_results(&text))
    }
}
