//! What the figures were measured on: part of every result, since no figure means anything alone.

use super::ground::Ground;
use super::server::{SCRAM_ITERATIONS, SERVER_SETTINGS, Servers};
use super::stage::Stage;
use super::subject::Subject;
use crate::{kernel_release, process, workspace};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// The machine and the versions of everything.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    kernel: String,
    pub(super) processor: String,
    pub(super) cores: usize,
    memory_gigabytes: f64,
    /// TCP's, of the machine and of the namespaces that are made on it.
    congestion_control: String,
    /// Of one minute, before the run: above a few hundredths the machine was not idle.
    load_before: f64,
    pub(super) versions: BTreeMap<&'static str, String>,
    /// Whether the kernel rewrites packets to the published port, or docker-proxy copies them.
    published_port: &'static str,
    server_settings: BTreeMap<&'static str, &'static str>,
    scram_iterations: u32,
    /// What each `pgs serve` says of the path that it chose.
    routers: BTreeMap<&'static str, serde_json::Value>,
}

impl Machine {
    /// Looks at everything. `load` is taken before anything was started.
    pub(super) fn examine(stage: &Stage, subjects: &[Subject], load: f64) -> Result<Self> {
        let mut routers = BTreeMap::new();
        for &subject in subjects.iter().filter(|subject| subject.path().is_some()) {
            routers.insert(subject.name(), stage.path_findings(subject)?);
        }
        let memory = file("/proc/meminfo");
        let kibibytes: f64 = after(&memory, "MemTotal:")
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0.0);
        Ok(Self {
            kernel: kernel_release::version()?,
            processor: after(&file("/proc/cpuinfo"), "model name\t:").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_gigabytes: (kibibytes * 1024.0 / 1e9).round(),
            congestion_control: file("/proc/sys/net/ipv4/tcp_congestion_control")
                .trim()
                .to_owned(),
            load_before: load,
            versions: versions(&stage.ground, &stage.servers, subjects),
            published_port: published_port(&stage.servers),
            server_settings: SERVER_SETTINGS.into_iter().collect(),
            scram_iterations: SCRAM_ITERATIONS,
            routers,
        })
    }

    /// In one line, for the head of a table.
    pub(super) fn line(&self) -> String {
        format!(
            "{} ({} cores, {} GB), Linux {}, TCP with {}",
            self.processor, self.cores, self.memory_gigabytes, self.kernel, self.congestion_control
        )
    }
}

/// The load average of the last minute.
pub(super) fn load() -> f64 {
    let text = file("/proc/loadavg");
    let first = text.split_whitespace().next();
    first.and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

fn versions(
    ground: &Ground,
    servers: &Servers,
    subjects: &[Subject],
) -> BTreeMap<&'static str, String> {
    // A program that does not say its version has none in the results.
    let said = |command: &mut Command| {
        let text = process::output(command).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let ask = |program: &str, argument: &str| {
        let program = process::find(program).unwrap_or_else(|| program.into());
        said(Command::new(program).arg(argument))
    };
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(workspace::root());
    let mut docker = Command::new("docker");
    docker.args(["version", "--format", "{{.Server.Version}}"]);
    let mut versions = BTreeMap::from([
        ("docker", format!("Docker {}", said(&mut docker))),
        ("pgbench", ask("pgbench", "--version")),
        ("pgs", said(ground.pgs("run").arg("version"))),
        ("postgresql", format!("PostgreSQL {}", servers.version)),
        ("source", said(&mut git)),
    ]);
    if subjects.contains(&Subject::Haproxy) {
        versions.insert("haproxy", ask("haproxy", "-v"));
    }
    if subjects.contains(&Subject::Pgbouncer) {
        versions.insert("pgbouncer", ask("pgbouncer", "--version"));
    }
    versions
}

fn published_port(servers: &Servers) -> &'static str {
    let rules = process::output(Command::new("iptables").args(["-t", "nat", "-S"]));
    let port = format!("--dport {} ", servers.published_port);
    match rules {
        Ok(rules) if rules.contains(&port) => "rewritten by the kernel (DNAT)",
        Ok(_) => "copied by docker-proxy",
        Err(_) => "unknown: iptables does not answer",
    }
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn after<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim()
}
