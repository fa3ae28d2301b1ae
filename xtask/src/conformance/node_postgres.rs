//! node-postgres' own integration tests, of Debian's source package; what it needs comes from npm.

use super::endpoint::Endpoint;
use super::outcome::{Tests, Verdict};
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant};
use super::{fetch, program};
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

    fn node(&self, script: &Path, port: u16) -> Command {
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
            .env("SCRAM_TEST_PGPASSWORD", PASSWORD)
            .env("PGTESTNOSSL", "true");
        node
    }
}

impl Suite for NodePostgres {
    fn facts(&self) -> Result<Facts> {
        let node = process::output(Command::new("node").arg("--version"))?;
        Ok(Facts {
            client: format!("node-postgres {} on Node.js {node}", self.version),
            tests: "its own, every file of packages/pg/test/integration".to_owned(),
            notes: vec!["A test is a file, which passes when all in it does.".to_owned()],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
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
            let tables = self.node(Path::new("script/create-test-tables.js"), endpoint.port());
            let status = program::run(step, &tables, log, LIMIT)?;
            ensure!(status.success(), "its tables cannot be made");
            for file in &files {
                let name = file.strip_prefix(&self.package)?.display().to_string();
                // One that hangs has failed.
                let ended = program::run(step, &self.node(file, endpoint.port()), log, LIMIT);
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
