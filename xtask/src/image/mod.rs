//! `cargo xtask image`: a PostgreSQL 18 image out of the distribution's packages.
//!
//! For machines where no image registry answers. The image keeps the contract of the official
//! `postgres:18` (<https://github.com/docker-library/postgres>): environment, paths, uid, signals.

mod archive;
mod rootfs;
mod suite;

use crate::report::{Step, heading};
use crate::{apt, process, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use rootfs::Rootfs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::process::Command;

/// What the image is called unless told otherwise.
pub(crate) const TAG: &str = "pgs/postgres:18";
/// The label that says which recipe built an image, so that a changed one is built anew.
const RECIPE_LABEL: &str = "pgs.image.recipe";
const ENTRYPOINT: &str = include_str!("../../image/entrypoint.sh");

#[derive(Args)]
pub(crate) struct ImageArgs {
    /// Name of the image
    #[arg(long, default_value = TAG)]
    tag: String,
    /// Build it even if it is there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &ImageArgs) -> Result<()> {
    heading(format_args!("image {}", args.tag));
    ensure(&args.tag, args.force)
}

/// Makes sure that Docker has the image `tag`, built by the recipe of this very source.
pub(crate) fn ensure(tag: &str, force: bool) -> Result<()> {
    let step = Step::new("PostgreSQL image");
    if !force && label(tag).is_some_and(|recipe| recipe == recipe_hash()) {
        step.done(format_args!(
            "{tag} is there (--force of `cargo xtask image` builds it anew)"
        ));
        return Ok(());
    }
    if !apt::can_install() {
        bail!(
            "{tag} is built with debootstrap, which needs root on Debian or Ubuntu; \
             run this as root there, or pull `postgres:18` and set PGS_IMAGE=postgres:18"
        );
    }
    if process::find("debootstrap").is_none() {
        apt::install(&step, &["debootstrap"])?;
    }
    let mirror = apt::Mirror::of_this_machine(&step)?;
    let suite = suite::carrying_postgresql(&step, &mirror)?;
    let directory = workspace::scratch("image")?;
    let rootfs = Rootfs::bootstrap(&step, &directory.join("root"), &mirror, &suite)?;
    let version = rootfs.install_postgresql(&step)?;
    rootfs.place_entrypoint(ENTRYPOINT)?;
    rootfs.slim()?;
    step.doing("loading the image into Docker");
    let replaced = image_id(tag);
    archive::load(
        &rootfs,
        &directory.join("archive"),
        tag,
        &labelled_configuration(&version),
    )?;
    rootfs.remove()?;
    if let Some(id) = replaced.filter(|id| image_id(tag).as_ref() != Some(id)) {
        // Docker refuses while a container uses it, which is how it should be.
        process::succeeds(Command::new("docker").args(["image", "rm", &id]));
    }
    let said = process::output(Command::new("docker").args([
        "run",
        "--rm",
        "--network",
        "none",
        tag,
        "postgres",
        "-V",
    ]))
    .context("the image was built but does not run")?;
    step.done(format_args!("{tag} built from {}: {said}", suite.name));
    Ok(())
}

/// What a container of the image starts with.
fn labelled_configuration(version: &str) -> Value {
    let mut configuration = configuration(version);
    configuration["Labels"] = json!({ RECIPE_LABEL: recipe_hash() });
    configuration
}

fn configuration(version: &str) -> Value {
    let system_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    json!({
        "Env": [
            format!("PATH={system_path}:/usr/lib/postgresql/18/bin"),
            "LANG=en_US.utf8",
            "PG_MAJOR=18",
            format!("PG_VERSION={version}"),
            "PGDATA=/var/lib/postgresql/18/docker",
        ],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["postgres"],
        "Volumes": { "/var/lib/postgresql": {} },
        "ExposedPorts": { "5432/tcp": {} },
        "StopSignal": "SIGINT",
        "WorkingDir": "/",
    })
}

/// Docker's id of an image, if it is there.
fn image_id(tag: &str) -> Option<String> {
    process::output(Command::new("docker").args(["image", "inspect", "--format", "{{.Id}}", tag]))
        .ok()
}

/// The recipe label of an image, `None` if the image or the label is not there.
fn label(tag: &str) -> Option<String> {
    let format = format!("{{{{ index .Config.Labels \"{RECIPE_LABEL}\" }}}}");
    process::output(Command::new("docker").args(["image", "inspect", "--format", &format, tag]))
        .ok()
        .filter(|value| !value.is_empty())
}

/// Changes when anything that shapes the image changes.
fn recipe_hash() -> String {
    let mut hash = Sha256::new();
    hash.update(ENTRYPOINT);
    hash.update(include_str!("rootfs.rs"));
    hash.update(configuration("").to_string());
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_of_the_official_image_is_configured() {
        let configuration = configuration("18.1");
        assert_eq!(configuration["StopSignal"], "SIGINT");
        assert_eq!(configuration["Cmd"][0], "postgres");
        assert!(configuration["Volumes"]["/var/lib/postgresql"].is_object());
        let environment = configuration["Env"].as_array().unwrap();
        assert!(
            environment
                .iter()
                .any(|set| set == "PGDATA=/var/lib/postgresql/18/docker")
        );
    }
}
