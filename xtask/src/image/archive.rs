//! The archive that `docker load` takes: one layer, one configuration, one manifest.
//!
//! `docker import` would be shorter, but it cannot set a stop signal. The format is the
//! "combined image JSON and filesystem changeset" of the Docker image specification v1.2.

use super::rootfs::Rootfs;
use crate::process;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const LAYER: &str = "layer.tar";
const CONFIGURATION: &str = "config.json";
const MANIFEST: &str = "manifest.json";

/// Loads `rootfs` into Docker as `tag`, with `config` as what a container of it starts with.
pub(super) fn load(rootfs: &Rootfs, directory: &Path, tag: &str, config: &Value) -> Result<()> {
    fs::create_dir_all(directory)?;
    let layer = directory.join(LAYER);
    process::output(
        Command::new("tar")
            .args(["--numeric-owner", "--sort=name", "--create", "--file"])
            .arg(&layer)
            .arg("-C")
            .arg(rootfs.path())
            .arg("."),
    )?;
    let sum = process::output(Command::new("sha256sum").arg(&layer))?;
    let digest = sum.split(' ').next().context("sha256sum printed nothing")?;
    let created = process::output(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    let image = image(config, digest, &created)?;
    write(directory, CONFIGURATION, &image)?;
    write(
        directory,
        MANIFEST,
        &json!([{ "Config": CONFIGURATION, "RepoTags": [tag], "Layers": [LAYER] }]),
    )?;
    stream(directory)?;
    Ok(fs::remove_dir_all(directory)?)
}

fn image(config: &Value, layer_digest: &str, created: &str) -> Result<Value> {
    Ok(json!({
        "architecture": architecture()?,
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created": created, "created_by": "cargo xtask image" }],
    }))
}

/// Docker's (Go's) name for this machine's architecture.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no image is built on {other}; pull `postgres:18` and set PGS_IMAGE to it"),
    }
}

fn write(directory: &Path, name: &str, content: &Value) -> Result<()> {
    let path = directory.join(name);
    fs::write(&path, content.to_string()).with_context(|| format!("write {}", path.display()))
}

fn stream(directory: &Path) -> Result<()> {
    let mut archive = Command::new("tar")
        .arg("-C")
        .arg(directory)
        .args(["--create", MANIFEST, CONFIGURATION, LAYER])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start tar")?;
    let stdin = archive.stdout.take().context("tar has no stdout")?;
    // The command holds the pipe: were it alive when Docker stops early, tar would never end.
    let loaded = Command::new("docker")
        .arg("load")
        .stdin(stdin)
        .stdout(Stdio::null())
        .status()
        .context("start `docker load`")?;
    let archived = archive.wait()?;
    if !loaded.success() || !archived.success() {
        bail!("loading the image failed: tar {archived}, docker load {loaded}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_names_its_layer_by_digest() {
        let image = image(
            &json!({ "Cmd": ["postgres"] }),
            "abc",
            "2020-01-01T00:00:00Z",
        )
        .unwrap();
        assert_eq!(image["rootfs"]["diff_ids"][0], "sha256:abc");
        assert_eq!(image["config"]["Cmd"][0], "postgres");
    }
}
