//! Set-up, demo, tests, eBPF build and checks: `cargo xtask <what>`, one command each.
//!
//! Everything here runs on the machine of whoever develops or tries pgs; none of it ships.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod bounded;
mod ci;
mod conformance;
mod container;
mod demo;
mod ebpf;
mod fuzz;
mod image;
mod kernel_release;
mod kernels;
mod named;
mod process;
mod report;
mod setup;
mod soak;
mod test;
mod tidy;
mod unit;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Everything that is not `cargo build`: one command each.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure pgs against the published port, HAProxy and PgBouncer, side by side
    Bench(bench::BenchArgs),
    /// Build the eBPF object from source, or compare it with the one in the repository
    BuildEbpf(ebpf::BuildEbpfArgs),
    /// Run every check that a change must pass, then every test
    Ci,
    /// Run clients' own test suites without pgs and through it, and compare
    Conformance(conformance::ConformanceArgs),
    /// Show it all: set up, build, serve, make a tenant, query it through the kernel path
    Demo(demo::DemoArgs),
    /// Run the fuzz targets for a bounded time
    Fuzz(fuzz::FuzzArgs),
    /// Build a PostgreSQL 18 image like the official one from distribution packages
    Image(image::ImageArgs),
    /// Run the data path's tests under other releases' kernels, in an emulated machine
    Kernels(kernels::KernelsArgs),
    /// Put in place what the other commands need: Docker, clients, image, eBPF tools
    Setup(setup::SetupArgs),
    /// Run the long tests in their complete form, for a bounded time
    Soak(soak::SoakArgs),
    /// Set up what is missing, build, and run every test
    Test,
    /// Check the rules that clippy does not know
    Tidy,
    /// Run the unit of `packaging/` under a systemd that is booted for it
    Unit(unit::UnitArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Bench(args) => bench::run(&args),
        Task::BuildEbpf(args) => ebpf::run(&args),
        Task::Ci => ci::run(),
        Task::Conformance(args) => conformance::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Image(args) => image::run(&args),
        Task::Kernels(args) => kernels::run(&args),
        Task::Setup(args) => setup::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Test => test::run(),
        Task::Tidy => tidy::run(),
        Task::Unit(args) => unit::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
