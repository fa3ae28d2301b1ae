//! Set-up, demo, tests, eBPF build and checks: `cargo xtask <what>`, one command each.
//!
//! Everything here runs on the machine of whoever develops or tries pgs; none of it ships.
#![forbid(unsafe_code)]

mod apt;
mod image;
mod process;
mod report;
mod setup;
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
    /// Build a PostgreSQL 18 image with the contract of the official one, from distribution packages
    Image(image::ImageArgs),
    /// Put in place what the other commands need: Docker, clients, image, eBPF tools
    Setup(setup::SetupArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Image(args) => image::run(&args),
        Task::Setup(args) => setup::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
