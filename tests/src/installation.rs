//! A state directory of its own with a router on it, and whether this machine can have one.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::leftovers;
use crate::process;
use crate::router::DataPath;
use crate::router::Router;
use crate::skip::Skip;
use crate::tenant::Tenant;

const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// One installation of pgs: what it keeps, and its router. All of it goes when it is dropped.
#[derive(Debug)]
pub struct Installation {
    /// Ends first: fields are dropped in the order of their declaration.
    router: Router,
    path: DataPath,
    directory: TempDir,
}

impl Installation {
    /// Makes one, if this machine can.
    pub fn start(path: DataPath) -> anyhow::Result<Self> {
        require_root()?;
        require_docker()?;
        leftovers::remove()?;
        let prefix = leftovers::prefix();
        let directory = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(leftovers::PARENT)?;
        let (state, run) = (directory.path().join("state"), directory.path().join("run"));
        if path == DataPath::Kernel {
            require_kernel_path(&state, &directory.path().join("probe"))?;
        }
        let router = Router::start(&state, &run, path)?;
        Ok(Self {
            router,
            path,
            directory,
        })
    }

    /// The router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What the router was told to use.
    pub fn path(&self) -> DataPath {
        self.path
    }

    /// Another router on the same tenants, with a run directory and a port of its own.
    pub fn second_router(&self, name: &str) -> anyhow::Result<Router> {
        self.second_router_with(name, &[])
    }

    /// The same, with these arguments of `pgs serve` besides.
    pub fn second_router_with(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Router> {
        let directory = self.directory.path();
        let arguments = [&["--path", self.path.as_str()], arguments].concat();
        Router::start_with(&directory.join("state"), &directory.join(name), &arguments)
    }

    /// The same by another program: [`Router::start_through`].
    pub fn router_through(
        &self,
        name: &str,
        program: &[&str],
        arguments: &[&str],
    ) -> anyhow::Result<Router> {
        let directory = self.directory.path();
        let arguments = [&["--path", self.path.as_str()], arguments].concat();
        let (state, run) = (directory.join("state"), directory.join(name));
        Router::start_through(&state, &run, program, &[], &arguments)
    }

    /// The state directory.
    pub fn state_directory(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The same with this configuration file.
    pub fn configured_router(&self, name: &str, configuration: &str) -> anyhow::Result<Router> {
        let directory = self.directory.path();
        let file = directory.join(format!("{name}.toml"));
        fs::write(&file, configuration)?;
        let arguments = [
            "--path",
            self.path.as_str(),
            "--config",
            &file.to_string_lossy(),
        ];
        Router::start_with(&directory.join("state"), &directory.join(name), &arguments)
    }

    /// Where files of a test can be put.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new tenant with access on.
    pub fn create_tenant(&self, id: &str) -> anyhow::Result<Tenant<'_>> {
        Tenant::create(self, id, &["--enable"])
    }

    /// A new tenant, made with these arguments of `pgs create`.
    pub fn create_tenant_with(&self, id: &str, arguments: &[&str]) -> anyhow::Result<Tenant<'_>> {
        Tenant::create(self, id, arguments)
    }

    /// The name of a tenant's container.
    pub fn container_of(&self, tenant: &str) -> anyhow::Result<String> {
        let label = format!(
            "label=dev.pgs.state-dir={}",
            self.state_directory().display()
        );
        let list = ["ps", "--format", "{{.Names}}", "--filter", &label];
        let names = process::run(Command::new("docker").args(list), PROBE_LIMIT)?.success()?;
        let suffix = format!("-{tenant}");
        let name = names.lines().find(|name| name.ends_with(&suffix));
        Ok(name.context("no container")?.to_owned())
    }

    /// The Unix socket on which a tenant's server itself listens.
    pub fn socket_of(&self, tenant: &str) -> PathBuf {
        self.directory
            .path()
            .join("state/sockets")
            .join(tenant)
            .join(".s.PGSQL.5432")
    }
}

/// The image that tenants are made from: `PGS_IMAGE`, or pgs's own choice.
pub fn image() -> Option<String> {
    std::env::var("PGS_IMAGE")
        .ok()
        .filter(|image| !image.is_empty())
}

fn require_root() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Skip::because("not root: containers, socket directories and eBPF need it")
}

fn require_docker() -> anyhow::Result<()> {
    let mut version = Command::new("docker");
    version.args(["version", "--format", "{{.Server.Version}}"]);
    match process::run(&mut version, PROBE_LIMIT) {
        Ok(finished) if finished.status.success() => require_image(),
        Ok(finished) => {
            let stderr = finished.stderr.trim();
            Skip::because(format!("no Docker daemon answers: {stderr}"))
        }
        Err(error) => Skip::because(format!("no Docker client: {error:#}")),
    }
}

fn require_image() -> anyhow::Result<()> {
    // Without a name pgs takes its default, and says itself what is wrong with it.
    let Some(image) = image() else { return Ok(()) };
    let mut inspect = Command::new("docker");
    inspect.args(["image", "inspect", "--format", "{{.Id}}", &image]);
    if process::run(&mut inspect, PROBE_LIMIT)?.status.success() {
        return Ok(());
    }
    Skip::because(format!(
        "the image `{image}` of PGS_IMAGE is not here: `cargo xtask image`"
    ))
}

/// Left to choose, a router takes the kernel path wherever its canaries pass, and says why not.
fn require_kernel_path(state: &Path, run: &Path) -> anyhow::Result<()> {
    let probe = Router::start_with(state, run, &["--path", "auto"])?;
    let status = probe.status()?;
    match status["path"].as_str() {
        Some("kernel") => Ok(()),
        _ => {
            let reason = status["path_reason"].as_str().unwrap_or("no reason given");
            Skip::because(format!("the kernel path is not available here: {reason}"))
        }
    }
}
