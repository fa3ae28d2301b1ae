//! Where things are: the workspace root and the directories under `target/`.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The root of the workspace that `cargo xtask` was called in.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        // Cargo says where it runs xtask for; without cargo, where it was built.
        let own = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        // xtask is a direct child of the root; without a parent it would be the root itself.
        own.parent().map(Path::to_owned).unwrap_or(own)
    });
    &ROOT
}

/// Cargo's target directory, as cargo itself would choose it.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |directory| root().join(directory))
}

/// A directory of xtask's own under `target/xtask`, made if it is not there.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let path = target().join("xtask").join(name);
    fs::create_dir_all(&path).with_context(|| format!("create directory {}", path.display()))?;
    Ok(path)
}
