//! `cargo xtask setup`: puts in place what a command needs and the machine has not.
//!
//! Each step looks first and does nothing where everything is there. A step that cannot do its
//! work fails with the way out, except where the command can do without: then it says so.

mod bpf_linker;
mod cargo_deny;
mod client;
mod docker;
mod measured;
pub(crate) mod postgres_image;
mod rust_source;
mod tool;

use crate::report::heading;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Only what this command needs
    #[arg(long = "for", value_name = "COMMAND", default_value = "everything")]
    purpose: Purpose,
}

/// What the machine is set up for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    Everything,
    Demo,
    Test,
    Ci,
    BuildEbpf,
    Bench,
}

/// What set-up found or made, for the command that asked for it.
#[derive(Default)]
pub(crate) struct Machine {
    /// Name of a PostgreSQL image that Docker has.
    pub(crate) image: Option<String>,
    /// bpf-linker of the right version, and a sysroot with the sources of `core`.
    pub(crate) ebpf: Option<EbpfTools>,
    /// cargo-deny.
    pub(crate) cargo_deny: Option<PathBuf>,
}

/// What building the eBPF object takes beyond rustc.
pub(crate) struct EbpfTools {
    pub(crate) bpf_linker: PathBuf,
}

pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    ensure(args.purpose).map(drop)
}

/// Brings the machine to where `purpose` can run.
pub(crate) fn ensure(purpose: Purpose) -> Result<Machine> {
    use Purpose::{Bench, BuildEbpf, Ci, Demo, Everything, Test};
    heading("set-up");
    let mut machine = Machine::default();
    if matches!(purpose, Everything | Demo | Test | Ci | Bench) {
        docker::ensure()?;
        client::ensure()?;
        machine.image = Some(postgres_image::ensure()?);
    }
    if matches!(purpose, Everything | Test | Ci | Bench) {
        client::ensure_iproute()?;
    }
    if matches!(purpose, Everything | Ci | BuildEbpf) {
        machine.ebpf = ebpf_tools()?;
    }
    if matches!(purpose, Everything | Ci) {
        machine.cargo_deny = Some(cargo_deny::ensure()?);
    }
    if purpose == Bench {
        measured::ensure()?;
    }
    Ok(machine)
}

/// `None` where the sources of this rustc's `core` cannot be had: then the object in the
/// repository is what there is.
fn ebpf_tools() -> Result<Option<EbpfTools>> {
    if !rust_source::ensure()? {
        return Ok(None);
    }
    Ok(Some(EbpfTools {
        bpf_linker: bpf_linker::ensure()?,
    }))
}
