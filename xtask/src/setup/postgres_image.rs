//! A PostgreSQL 18 image in Docker: the one asked for, the official one, or one built here.

use crate::report::Step;
use crate::{image, process};
use anyhow::{Context, Result};
use std::process::Command;
use std::time::Duration;

/// The variable that names the image to use.
pub(crate) const VARIABLE: &str = "PGS_IMAGE";
const OFFICIAL: &str = "postgres:18";
/// How long a registry may take to say that it has the image.
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);

/// The name of an image that is there when this returns.
pub(super) fn ensure() -> Result<String> {
    let step = Step::new("PostgreSQL image");
    if let Some(asked) = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty()) {
        if !is_present(&asked) {
            pull(&step, &asked).with_context(|| {
                format!("{VARIABLE}={asked} is not here and cannot be pulled; unset it or load it")
            })?;
        }
        step.done(format_args!("{asked}, as {VARIABLE} says"));
        return Ok(asked);
    }
    if is_present(OFFICIAL) {
        step.done(format_args!("{OFFICIAL} is there"));
        return Ok(OFFICIAL.to_owned());
    }
    if !is_present(image::TAG) && registry_has(OFFICIAL)? {
        pull(&step, OFFICIAL)?;
        step.done(format_args!("{OFFICIAL} pulled"));
        return Ok(OFFICIAL.to_owned());
    }
    image::ensure(image::TAG, false)?;
    Ok(image::TAG.to_owned())
}

fn is_present(name: &str) -> bool {
    process::succeeds(Command::new("docker").args(["image", "inspect", name]))
}

/// Asks for the manifest alone: a machine without a way to a registry learns so at once.
fn registry_has(name: &str) -> Result<bool> {
    let mut command = Command::new("docker");
    process::succeeds_within(command.args(["manifest", "inspect", name]), REGISTRY_LIMIT)
}

fn pull(step: &Step, name: &str) -> Result<()> {
    step.doing(format_args!("pulling {name}"));
    process::followed(step, Command::new("docker").args(["pull", name]))
}
