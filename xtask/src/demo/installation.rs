//! The demo's own installation of pgs: directories, tenant, password.

use crate::report::Step;
use crate::{process, workspace};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Random bytes in the demo's password.
const PASSWORD_BYTES: usize = 12;

/// `pgs` with directories that no other installation uses.
pub(super) struct Installation {
    binary: PathBuf,
    image: String,
    root: PathBuf,
}

impl Installation {
    pub(super) fn new(binary: PathBuf, image: String) -> Result<Self> {
        let root = workspace::target().join("demo");
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        Ok(Self {
            binary,
            image,
            root,
        })
    }

    /// `pgs` for this installation; the verb and its arguments are to be added.
    pub(super) fn pgs(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--state-dir")
            .arg(self.root.join("state"))
            .arg("--run-dir")
            .arg(self.root.join("run"))
            .env("PGS_IMAGE", &self.image);
        command
    }

    /// The same, as a person would type it.
    pub(super) fn as_typed(&self) -> String {
        let shown = |path: &Path| {
            path.strip_prefix(workspace::root())
                .unwrap_or(path)
                .display()
                .to_string()
        };
        format!(
            "{} --state-dir {} --run-dir {} list",
            shown(&self.binary),
            shown(&self.root.join("state")),
            shown(&self.root.join("run"))
        )
    }

    /// Where the router's log goes.
    pub(super) fn log_path(&self) -> PathBuf {
        self.root.join("serve.log")
    }

    /// Where a file that is needed for a moment can be put.
    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Runs a verb and gives what it printed.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        process::output(self.pgs().args(arguments))
    }

    /// Runs a verb on this terminal.
    pub(super) fn show(&self, arguments: &[&str]) -> Result<()> {
        process::visible(self.pgs().args(arguments))
    }

    /// Why the router relays, as far as it says so.
    pub(super) fn router_reason(&self) -> String {
        let status = self.run(&["status", "--json"]).unwrap_or_default();
        serde_json::from_str::<Value>(&status)
            .ok()
            .and_then(|status| find_text(&status, "path_reason"))
            .unwrap_or_else(|| "see `pgs doctor`".to_owned())
    }

    /// Makes the tenant or starts it again, lets clients in, and gives its password.
    pub(super) fn ensure_tenant(&self, tenant: &str) -> Result<String> {
        let step = Step::new(format!("tenant {tenant}"));
        let list: Value = serde_json::from_str(&self.run(&["list", "--json"])?)
            .context("read what `pgs list --json` printed")?;
        let standing = list["tenants"]
            .as_array()
            .and_then(|tenants| tenants.iter().find(|entry| entry["tenant"] == tenant))
            .map(|entry| entry["standing"] == "ready");
        if standing == Some(false) {
            // The target directory was cleaned, and with it the registry of an earlier demo.
            step.doing("removing what an earlier demo has left of it");
            self.run(&["remove", tenant, "--yes"])?;
        }
        let known = standing == Some(true);
        let file = self.root.join(format!("{tenant}.password"));
        let had_password = file.exists();
        let password = if had_password {
            fs::read_to_string(&file)?.trim().to_owned()
        } else {
            new_password(&file)?
        };
        let file = file.display().to_string();
        if known {
            step.doing("starting it again");
            self.run(&["start", tenant])?;
            if !had_password {
                self.run(&["password", tenant, "--password-file", &file])?;
            }
            self.run(&["enable", tenant])?;
            step.done("runs, clients are let in");
        } else {
            step.doing("making it: a container, a volume, a role, a database");
            process::followed(
                &step,
                self.pgs()
                    .args(["create", tenant, "--password-file", &file, "--enable"]),
            )?;
            step.done("made, clients are let in");
        }
        Ok(password)
    }
}

/// The first text under `key`, however deep.
fn find_text(value: &Value, key: &str) -> Option<String> {
    match value {
        Value::Object(fields) => fields
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| fields.values().find_map(|field| find_text(field, key))),
        Value::Array(items) => items.iter().find_map(|item| find_text(item, key)),
        _ => None,
    }
}

/// A random password in a file that only its owner reads.
fn new_password(path: &Path) -> Result<String> {
    let mut random = [0_u8; PASSWORD_BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{password}")?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_reason_is_found_wherever_it_stands() {
        let status = json!({ "router": { "path": "relay", "path_reason": "no BTF" } });
        assert_eq!(find_text(&status, "path_reason"), Some("no BTF".to_owned()));
        assert_eq!(
            find_text(&json!({ "path_reason": null }), "path_reason"),
            None
        );
    }
}
