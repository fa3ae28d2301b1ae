//! bpf-linker, which turns LLVM bitcode into an eBPF object.

use super::tool::Tool;
use anyhow::Result;
use std::path::PathBuf;

/// The last line of versions that uses the LLVM inside rustc; later ones want one installed.
const VERSION: &str = "0.10.4";

pub(super) fn ensure() -> Result<PathBuf> {
    Tool {
        name: "bpf-linker",
        version: VERSION,
        cost: "one to two minutes",
        arguments: &[],
    }
    .ensure()
}
