//! The clients' network namespace, behind a veth pair: their packets take the way that packets from
//! another machine take.

use super::ground::Ground;
use crate::process;
use anyhow::{Context, Result};
use std::process::Command;

/// The namespace is there; it goes with the [`Ground`].
pub(super) struct Network {
    namespace: String,
    /// The machine's address on the veth pair.
    pub(super) address: String,
}

impl Network {
    /// Makes namespace, pair, addresses and route, out of the range that is set apart for
    /// benchmarks (RFC 2544, 198.18.0.0/15).
    pub(super) fn make(ground: &Ground) -> Result<Self> {
        let namespace = ground.namespace();
        let (host, clients) = ground.veth();
        let address = format!("198.18.{}.1", ground.subnet());
        let client_address = format!("198.18.{}.2/30", ground.subnet());
        ip(&["netns", "add", &namespace])?;
        ip(&[
            "link", "add", &host, "type", "veth", "peer", "name", &clients, "netns", &namespace,
        ])?;
        ip(&["address", "add", &format!("{address}/30"), "dev", &host])?;
        ip(&["link", "set", &host, "up"])?;
        let inside = |arguments: &[&str]| ip(&[&["-n", &namespace], arguments].concat());
        inside(&["address", "add", &client_address, "dev", &clients])?;
        inside(&["link", "set", &clients, "up"])?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["route", "add", "default", "via", &address])?;
        // A connection for each query leaves a port in TIME_WAIT behind each time.
        let network = Self { namespace, address };
        let settings = "cd /proc/sys/net/ipv4; echo 1024 65535 > ip_local_port_range; \
                        echo 1 > tcp_tw_reuse";
        let mut shell = Command::new("sh");
        process::output(&mut network.inside(shell.args(["-e", "-c", settings])))?;
        Ok(network)
    }

    /// The same command, run in the namespace.
    pub(super) fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside
            .args(["netns", "exec", &self.namespace])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                inside.env(name, value);
            }
        }
        inside
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    process::output(Command::new("ip").args(arguments))
        .map(drop)
        .context("a network namespace needs root and the kernel's veth")
}
