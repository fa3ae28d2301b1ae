//! cargo-deny, which checks licences, sources and duplicate dependencies.

use super::tool::Tool;
use anyhow::Result;
use std::path::PathBuf;

const VERSION: &str = "0.20.2";

pub(super) fn ensure() -> Result<PathBuf> {
    // Unoptimised: it builds in a fraction of the time and runs for a second.
    Tool {
        name: "cargo-deny",
        version: VERSION,
        cost: "one to two minutes",
        arguments: &["--debug"],
    }
    .ensure()
}
