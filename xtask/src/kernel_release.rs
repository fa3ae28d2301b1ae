//! What results say of the machine that they come from.

use anyhow::{Context, Result};
use std::fs;

/// Version of the running kernel, without what its builder calls it.
pub(crate) fn version() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(version_of(&release).to_owned())
}

/// The version in a release.
pub(crate) fn version_of(release: &str) -> &str {
    let release = release.trim();
    release
        .split_once('-')
        .map_or(release, |(version, _builder)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_version_ends_before_its_builders_part() {
        assert_eq!(version_of("6.12.9-cloud-amd64-x\n"), "6.12.9");
        assert_eq!(version_of("6.18.44\n"), "6.18.44");
    }
}
