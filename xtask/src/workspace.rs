//! Where things are: the workspace root and the directories under `target/`.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace this binary was built in.
pub(crate) fn root() -> &'static Path {
    // xtask is a direct child of the root; without a parent it would be the root itself.
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
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
