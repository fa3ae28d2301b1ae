//! The command line of `cargo xtask bench`, and what it comes to.

use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Measure pgs against the published port, HAProxy and PgBouncer, side by side
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Rounds, each of which measures everything once [default: 5; with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Length of one measurement with pgbench [default: 5; with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// What one COPY moves, in GB of 10^9 bytes [default: 2; with --quick 0.5]
    #[arg(long, value_name = "GB", value_parser = gigabytes)]
    copy_gigabytes: Option<f64>,
    /// A few figures of a few subjects, to see that it works: the numbers mean nothing
    #[arg(long)]
    quick: bool,
    /// Measure only what has all of these comma-separated words in its name, such as
    /// `namespace,copy-out` or `select,c16,pgs-auto`; may be given several times
    #[arg(long, value_name = "WORDS")]
    pub(super) only: Vec<String>,
    /// Print the names of the measurements of one round, and measure nothing
    #[arg(long)]
    pub(super) list: bool,
    /// Sessions to measure the memory of an idle one with
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=250))]
    idle_sessions: u32,
    /// Scale of pgbench's tables: about 15 MB each
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    scale: u32,
    /// Directory for the results [default: bench/results of the workspace]
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
}

impl BenchArgs {
    pub(super) fn is_quick(&self) -> bool {
        self.quick
    }

    /// The settings, given the image that there is.
    pub(super) fn settings(&self, image: String) -> Settings {
        let default = |quick: u32, full: u32| if self.quick { quick } else { full };
        let copy = if self.quick { 0.5 } else { 2.0 };
        Settings {
            rounds: self.rounds.unwrap_or_else(|| default(1, 5)),
            seconds: self.seconds.unwrap_or_else(|| default(1, 5)),
            copy_gigabytes: self.copy_gigabytes.unwrap_or(copy),
            idle_sessions: self.idle_sessions,
            scale: self.scale,
            image,
        }
    }
}

/// How a run measures; part of its results.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    pub(super) rounds: u32,
    pub(super) seconds: u32,
    pub(super) copy_gigabytes: f64,
    pub(super) idle_sessions: u32,
    pub(super) scale: u32,
    pub(super) image: String,
}

fn gigabytes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.01..=100.0).contains(&number) => Ok(number),
        Ok(_) => Err("between 0.01 and 100".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}
