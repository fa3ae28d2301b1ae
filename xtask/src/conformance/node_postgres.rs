//! node-postgres' own integration tests, of Debian's source package; what it needs comes from npm.

use super::compare::Due;
use super::endpoint::{Endpoint, Subject};
use super::outcome::{Tests, Verdict};
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant};
use super::{encryption, fetch, program};
use crate::report::Step;
use crate::{apt, process};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const TENANT: &str = "nodepg";
/// Of one file of tests.
const LIMIT: Duration = Duration::from_secs(60);
/// What the tests use beside the packages of the source itself, as its `package.json` has them.
const TEST_MODULES: [&str; 4] = ["async", "bluebird", "co", "pg-copy-streams"];

/// Files whose clients connect to servers of the tests' own, which refuse TLS.
const OWN_SERVER: [&str; 4] = [
    "network-partition-tests.js",
    "connection-timeout-tests.js",
    "2627-tests.js",
    "3174-tests.js",
];
/// How files end over TLS that end otherwise without it, and why.
const OVER_TLS: [(&str, Verdict, &str); 2] = [
    (
        "client/ssl-tests.js",
        Verdict::Passed,
        "Over TLS it passes: it wants a server that has it.",
    ),
    (
        "connection-pool/error-tests.js",
        Verdict::Failed,
        "Over TLS it fails, with PostgreSQL's own as with that of pgs: one of its tests makes an \
         error on the socket below the driver's TLS, which the driver then reports twice, the \
         second time to nobody.",
    ),
];
/// Connects over TLS, and expects that the certificate is of an authority that is not known.
const UNKNOWN_AUTHORITY: &str = "2085-tests.js";

/// Its source, and beside it the modules.
pub(super) struct NodePostgres {
    package: PathBuf,
    version: String,
}

impl NodePostgres {
    pub(super) fn prepare() -> Result<Self> {
        let step = Step::new("node-postgres");
        ensure_node(&step)?;
        let (source, _) = fetch::debian_source(&step, "node-postgres", |_| true)?;
        let package = source.join("packages/pg");
        let manifest = manifest(&package)?;
        let version = manifest["version"]
            .as_str()
            .context("no version in package.json")?;
        step.doing("installing what its tests need with npm");
        install_modules(&step, &source, &manifest)?;
        step.done(format_args!("{version} and what its tests need"));
        Ok(Self {
            package,
            version: version.to_owned(),
        })
    }

    fn node(&self, script: &Path, endpoint: &Endpoint<'_>) -> Command {
        let port = endpoint.port();
        let mut node = Command::new("node");
        node.current_dir(&self.package)
            .arg(script)
            .arg(format!(
                "postgres://{TENANT}:{PASSWORD}@127.0.0.1:{port}/{TENANT}"
            ))
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", port.to_string())
            .env("PGUSER", TENANT)
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", TENANT)
            .env("SCRAM_TEST_PGUSER", TENANT)
            .env("SCRAM_TEST_PGPASSWORD", PASSWORD);
        let own_server = OWN_SERVER.iter().any(|name| script.ends_with(name));
        match endpoint.root_certificate() {
            Some(root) if !own_server => over_tls(&mut node, script, root),
            _ => {
                node.env("PGTESTNOSSL", "true");
            }
        }
        node
    }
}

impl Suite for NodePostgres {
    fn facts(&self) -> Result<Facts> {
        let node = process::output(Command::new("node").arg("--version"))?;
        Ok(Facts {
            client: format!("node-postgres {} on Node.js {node}", self.version),
            tests: "its own, every file of packages/pg/test/integration".to_owned(),
            notes: vec![
                "A test is a file, which passes when all in it does.".to_owned(),
                format!(
                    "Over TLS, `{}` begin without it as everywhere: their clients connect to \
                     servers of the tests' own, which refuse it.",
                    OWN_SERVER.join("`, `")
                ),
                format!(
                    "`{UNKNOWN_AUTHORITY}` skips itself where there is no TLS. Over TLS it is run, \
                     and its client does not know the authority, as it expects."
                ),
            ],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn instead(&self, subject: Subject, test: &str) -> Option<Due> {
        let (_, verdict, reason) = OVER_TLS
            .iter()
            .find(|(name, _, _)| subject == Subject::Tls && test.ends_with(name))?;
        Some(Due {
            test: test.to_owned(),
            verdict: *verdict,
            reason,
        })
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        let mut tests = Tests::new();
        let mut files = Vec::new();
        collect(&self.package.join("test/integration"), &mut files)?;
        program::logged(log, || {
            let tables = self.node(Path::new("script/create-test-tables.js"), endpoint);
            let status = program::run(step, &tables, log, LIMIT)?;
            ensure!(status.success(), "its tables cannot be made");
            for file in &files {
                let name = file.strip_prefix(&self.package)?.display().to_string();
                // One that hangs has failed.
                let ended = program::run(step, &self.node(file, endpoint), log, LIMIT);
                let passed = ended.is_ok_and(|status| status.success());
                let verdict = if passed {
                    Verdict::Passed
                } else {
                    Verdict::Failed
                };
                tests.insert(name, verdict);
            }
            Ok(())
        })?;
        Ok(tests)
    }
}

/// With `PGSSLMODE=verify-full` the driver leaves it to Node.js to verify the certificate; which
/// authorities there are, beside those of the world, is told to Node.js alone.
fn over_tls(node: &mut Command, script: &Path, root: &Path) {
    // Some tests call psql, too, which takes the root certificate from there.
    encryption::tell_libpq(node, Some(root));
    if !script.ends_with(UNKNOWN_AUTHORITY) {
        node.env("NODE_EXTRA_CA_CERTS", root);
    }
}

fn ensure_node(step: &Step) -> Result<()> {
    if process::find("node").is_some() && process::find("npm").is_some() {
        return Ok(());
    }
    if !apt::can_install() {
        bail!("`node` and `npm` are not installed; run `sudo apt-get install nodejs npm`");
    }
    apt::install(step, &["nodejs", "npm"])
}

fn manifest(package: &Path) -> Result<Value> {
    let path = package.join("package.json");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}

/// Into the source's top directory, where node looks for what the packages below require.
fn install_modules(step: &Step, source: &Path, package: &Value) -> Result<()> {
    let mut wanted = package["dependencies"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    for module in TEST_MODULES {
        wanted.insert(
            module.to_owned(),
            package["devDependencies"][module].clone(),
        );
    }
    let text = json!({ "name": "conformance", "private": true, "dependencies": wanted });
    fs::write(source.join("package.json"), text.to_string())?;
    let mut npm = Command::new("npm");
    npm.current_dir(source)
        .args(["install", "--no-audit", "--no-fund", "--omit=optional"]);
    process::followed(step, &mut npm)
}

/// Every `*-tests.js`, in the order of their names.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.to_string_lossy().ends_with("-tests.js") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}
