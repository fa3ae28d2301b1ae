//! Which suite of the distribution carries PostgreSQL 18.

use crate::apt::{Elsewhere, Mirror};
use crate::report::Step;
use crate::workspace;
use anyhow::{Result, bail};
use std::path::Path;

/// The package whose suite is looked for.
const PACKAGE: &str = "postgresql-18";
const SCRIPTS: &str = "/usr/share/debootstrap/scripts";

/// A suite to bootstrap from.
pub(super) struct Suite {
    /// Codename, such as `forky`.
    pub(super) name: String,
    /// The debootstrap script that knows how; a suite newer than debootstrap borrows another's.
    pub(super) script: String,
}

/// The first suite that has the package: the machine's own release, then newer ones.
pub(super) fn carrying_postgresql(step: &Step, mirror: &Mirror) -> Result<Suite> {
    let newer: &[&str] = match mirror.origin.as_str() {
        "Ubuntu" => &["resolute"],
        _ => &["forky", "sid"],
    };
    let candidates = std::iter::once(mirror.codename.as_str()).chain(newer.iter().copied());
    step.doing(format_args!(
        "looking for a suite of {} with {PACKAGE}",
        mirror.origin
    ));
    let mut seen = Vec::new();
    for name in candidates {
        let directory = workspace::scratch("image/apt")?.join(name);
        // A mirror need not carry every suite: the next one may do.
        let apt = match Elsewhere::fetch(step, &directory, mirror, &[name]) {
            Ok(apt) => apt,
            Err(error) => {
                seen.push(format!("{name}: {}", last_line(&error)));
                continue;
            }
        };
        if !apt.versions(PACKAGE)?.is_empty() {
            return Ok(Suite {
                name: name.to_owned(),
                script: script(&mirror.origin, name),
            });
        }
        seen.push(format!("{name}: not in it"));
    }
    bail!(
        "no suite of the machine's mirror has {PACKAGE} ({}); \
         pull `postgres:18` from a registry and set PGS_IMAGE=postgres:18",
        seen.join(", ")
    )
}

/// Apt says what is wrong at the end.
fn last_line(error: &anyhow::Error) -> String {
    let cause = error.root_cause().to_string();
    cause
        .lines()
        .next_back()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn script(origin: &str, name: &str) -> String {
    // What debootstrap itself uses for every release of the distribution that it knows.
    let family = if origin == "Ubuntu" { "gutsy" } else { "sid" };
    let own = Path::new(SCRIPTS).join(name);
    let script = if own.exists() {
        own
    } else {
        Path::new(SCRIPTS).join(family)
    };
    script.display().to_string()
}
