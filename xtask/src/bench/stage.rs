//! Everything that must stand for a measurement: servers, routers, the clients' network.

use super::figure::Place;
use super::ground::Ground;
use super::interruption::Interruption;
use super::network::Network;
use super::options::Settings;
use super::router::Router;
use super::server::Servers;
use super::subject::Subject;
use crate::process;
use crate::report::Step;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// How much longer than planned a client may take before it is ended: a session that hangs is a
/// failed measurement, not a run that never ends.
const PATIENCE_SECONDS: u32 = 60;

/// Fields are dropped in this order: routers before servers and network, which go with the ground.
pub(super) struct Stage {
    routers: Vec<(Subject, Router)>,
    pub(super) servers: Servers,
    network: Network,
    pub(super) ground: Ground,
    interruption: Arc<Interruption>,
    /// The program that fills the registry.
    filler: PathBuf,
}

/// How a client reaches a subject.
struct Endpoint {
    host: String,
    port: u16,
}

impl Stage {
    /// Builds it all up; what was built before a failure goes again.
    pub(super) fn build(
        binaries: &Binaries,
        subjects: &[Subject],
        settings: &Settings,
        interruption: Arc<Interruption>,
    ) -> Result<Self> {
        let ground = Ground::prepare(&binaries.pgs)?;
        let network = Network::make(&ground)?;
        interruption.check()?;
        let servers = Servers::make(&ground, settings, &network.address)?;
        let mut stage = Self {
            routers: Vec::new(),
            servers,
            network,
            ground,
            interruption,
            filler: binaries.filler.clone(),
        };
        for &subject in subjects.iter().filter(|subject| subject.is_router()) {
            stage.interruption.check()?;
            let router = stage.fresh_router(subject, "main")?;
            stage.routers.push((subject, router));
        }
        for &subject in subjects {
            stage.try_out(subject)?;
        }
        Ok(stage)
    }

    /// One more router of a kind that may run already.
    pub(super) fn fresh_router(&self, subject: Subject, instance: &str) -> Result<Router> {
        let address = &self.network.address;
        Router::start(subject, instance, &self.ground, &self.servers, address)
    }

    /// A client program that knows how to reach the subject, where it is to run, and for how long
    /// at most.
    pub(super) fn client(
        &self,
        program: &str,
        place: Place,
        subject: Subject,
        seconds: u32,
    ) -> Result<Command> {
        let endpoint = self.endpoint(place, subject)?;
        Ok(self.client_of(program, place, &endpoint, seconds))
    }

    /// The same for a router that is not the subject's main one.
    pub(super) fn client_of_router(&self, program: &str, router: &Router, seconds: u32) -> Command {
        let endpoint = Endpoint {
            host: self.network.address.clone(),
            port: router.port,
        };
        self.client_of(program, Place::Namespace, &endpoint, seconds)
    }

    fn client_of(&self, program: &str, place: Place, endpoint: &Endpoint, seconds: u32) -> Command {
        let client = self.servers.client(program, &endpoint.host, endpoint.port);
        let mut limited = Command::new("timeout");
        limited
            .args(["--kill-after", "5"])
            .arg((seconds + PATIENCE_SECONDS).to_string())
            .arg(client.get_program())
            .args(client.get_args());
        for (name, value) in client.get_envs() {
            if let Some(value) = value {
                limited.env(name, value);
            }
        }
        match place {
            Place::Namespace => self.network.inside(&limited),
            Place::Loopback => limited,
        }
    }

    /// Runs a client to its end and gives what it printed. An error has its last words.
    pub(super) fn run(&self, command: &mut Command) -> Result<String> {
        let (out, err) = (
            self.ground.path("client.out"),
            self.ground.path("client.err"),
        );
        command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?);
        self.finish(command, &err)?;
        Ok(fs::read_to_string(&out)?)
    }

    /// Runs a client whose streams the caller has set, but for stderr.
    pub(super) fn run_quietly(&self, command: &mut Command) -> Result<()> {
        let err = self.ground.path("client.err");
        command.stderr(File::create(&err)?);
        self.finish(command, &err)
    }

    fn finish(&self, command: &mut Command, err: &Path) -> Result<()> {
        let status = self.interruption.run(command)?;
        if !status.success() {
            let said = fs::read_to_string(err).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            bail!("the client failed ({status}): {}", last.join(" / "));
        }
        Ok(())
    }

    /// Makes the registry have so many tenants, of which one is real.
    pub(super) fn register_tenants(&self, tenants: u32) -> Result<()> {
        let mut filler = Command::new(&self.filler);
        filler
            .arg(self.ground.state_directory())
            .arg(tenants.saturating_sub(1).to_string());
        process::output(&mut filler).map(drop)
    }

    pub(super) fn interruption(&self) -> &Interruption {
        &self.interruption
    }

    /// What `pgs` itself says about the path that its sessions take.
    pub(super) fn path_findings(&self, subject: Subject) -> Result<serde_json::Value> {
        let directory = format!("{}-main", subject.name());
        let printed = process::output(self.ground.pgs(&directory).args(["status", "--json"]))?;
        let status: serde_json::Value = serde_json::from_str(&printed)?;
        Ok(status["router"].clone())
    }

    fn endpoint(&self, place: Place, subject: Subject) -> Result<Endpoint> {
        let host = match place {
            Place::Namespace => self.network.address.clone(),
            Place::Loopback => "127.0.0.1".to_owned(),
        };
        let port = match subject {
            Subject::Published => self.servers.published_port,
            Subject::UnixSocket => {
                return Ok(Endpoint {
                    host: self.servers.socket_directory.display().to_string(),
                    port: 5432,
                });
            }
            _ => {
                let running = self.routers.iter().find(|(other, _)| *other == subject);
                let (_, router) = running.with_context(|| format!("no {}", subject.name()))?;
                router.port
            }
        };
        Ok(Endpoint { host, port })
    }

    /// A subject that does not work at all ends the run before hours go into it.
    fn try_out(&self, subject: Subject) -> Result<()> {
        let step = Step::new(subject.title());
        for place in [Place::Namespace, Place::Loopback] {
            let mut psql = self.client("psql", place, subject, 0)?;
            let said = self
                .run(psql.args(["-XAtqc", "SELECT 'reached'"]))
                .with_context(|| format!("reach {} from {}", subject.name(), place.name()))?;
            if said.trim() != "reached" {
                bail!("{} answered `{said}`", subject.name());
            }
        }
        step.done("reached from the namespace and from loopback");
        Ok(())
    }
}

/// The programs that are measured, as built for release.
pub(super) struct Binaries {
    pub(super) pgs: PathBuf,
    pub(super) filler: PathBuf,
}
