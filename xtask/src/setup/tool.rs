//! Cargo tools of a fixed version, found on PATH or built under `target/xtask/tools`.

use crate::report::Step;
use crate::{process, workspace};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that cargo can install.
pub(super) struct Tool {
    /// Name of the package and of the program.
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// What building it costs, said before it starts.
    pub(super) cost: &'static str,
    /// Further arguments of `cargo install`.
    pub(super) arguments: &'static [&'static str],
}

impl Tool {
    /// The path of the program, built first if no copy of this version is there.
    ///
    /// It is built into the workspace's target directory: the machine's own tools stay as they are.
    pub(super) fn ensure(&self) -> Result<PathBuf> {
        let step = Step::new(self.name);
        let root = workspace::scratch("tools")?;
        let own = root.join("bin").join(self.name);
        for candidate in process::find(self.name).into_iter().chain([own.clone()]) {
            if self.is_right(&candidate) {
                step.done(format_args!("{} at {}", self.version, candidate.display()));
                return Ok(candidate);
            }
        }
        step.doing(format_args!("building {} ({})", self.version, self.cost));
        let mut command = process::cargo();
        command
            .args([
                "install",
                self.name,
                "--version",
                self.version,
                "--locked",
                "--force",
            ])
            .args(self.arguments)
            .arg("--root")
            .arg(&root)
            .env("CARGO_TARGET_DIR", root.join("build").join(self.name));
        process::followed(&step, &mut command).with_context(|| {
            format!(
                "build {name} {version}; try it by hand: `cargo install {name} --version \
                 {version} --locked`",
                name = self.name,
                version = self.version
            )
        })?;
        step.done(format_args!("{} built at {}", self.version, own.display()));
        Ok(own)
    }

    fn is_right(&self, program: &Path) -> bool {
        program.is_file()
            && process::output(Command::new(program).arg("--version"))
                .is_ok_and(|text| text.split_whitespace().any(|word| word == self.version))
    }
}
