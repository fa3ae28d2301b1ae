//! The emulated machine: what it is given, and its run.

use super::Binaries;
use super::package::{self, Kernel};
use super::plan::{Part, Program};
use super::transcript::Transcript;
use crate::bounded::{self, Ended};
use crate::report::{self, Step};
use crate::setup::postgres_image;
use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const INITRAMFS: &str = include_str!("../../kernels/initramfs.sh");
const GUEST: &str = include_str!("../../kernels/guest.sh");

/// What is written there lies in memory, Docker's image among it.
const MEMORY_MIB: u32 = 8192;
const PROCESSORS: u32 = 2;

/// One kernel with all that it needs to boot.
pub(super) struct Guest {
    image: PathBuf,
    modules: PathBuf,
    initramfs: PathBuf,
    script: PathBuf,
}

impl Guest {
    /// Writes what it reads into `directory`, where Docker's image lies already.
    pub(super) fn prepare(
        directory: &Path,
        kernel: &Kernel,
        binaries: &Binaries,
        image: &str,
        parts: &[&Part],
    ) -> Result<Self> {
        let step = Step::new("initial file system");
        let script = directory.join("guest.sh");
        fs::write(&script, GUEST)?;
        fs::write(directory.join("parts"), lines(parts, binaries)?)?;
        fs::write(directory.join("environment"), environment(binaries, image)?)?;
        let pack = directory.join("initramfs.sh");
        fs::write(&pack, INITRAMFS)?;
        let initramfs = package::beside(&kernel.root, "initramfs");
        let mut command = Command::new("bash");
        command.arg(&pack).arg(kernel.base());
        process::output(command.arg(&kernel.release).arg(&initramfs))?;
        step.done(format_args!(
            "{} KiB",
            fs::metadata(&initramfs)?.len() >> 10
        ));
        Ok(Self {
            image: kernel.image.clone(),
            modules: kernel.modules.clone(),
            initramfs,
            script,
        })
    }

    /// Boots it, shows what its parts print, and ends it when its time is over.
    pub(super) fn run(&self, kvm: bool, limit: Duration) -> Result<Transcript> {
        let step = Step::new("boot");
        step.doing("and Docker inside");
        let mut transcript = Transcript::default();
        let mut before = Vec::new();
        let ended = bounded::run(&mut self.command(kvm)?, Instant::now() + limit, |line| {
            let line = line.trim_end();
            if transcript.take(line) {
                report::line(format_args!("    {line}"));
            } else {
                before.push(line.to_owned());
            }
        })?;
        let last = before
            .split_off(before.len().saturating_sub(5))
            .join("\n    ");
        if let Some(fault) = transcript.fault() {
            bail!(
                "under {}: `{fault}` failed; it last said\n    {last}",
                transcript.kernel()
            );
        }
        match ended {
            Ended::Stopped => step.skipped("stopped: its time is over"),
            _ if transcript.is_done() => step.done(transcript.kernel()),
            _ => bail!("the machine ended before its time; it last said\n    {last}"),
        }
        Ok(transcript)
    }

    /// Its root is this machine's, read-only. It has no network but its own loopback.
    fn command(&self, kvm: bool) -> Result<Command> {
        let share = |name: &str, path: &Path| {
            let path = path.display();
            [
                "-fsdev".to_owned(),
                format!(
                    "local,id={name},path={path},security_model=none,readonly=on,multidevs=remap"
                ),
                "-device".to_owned(),
                format!("virtio-9p-pci,fsdev={name},mount_tag={name}"),
            ]
        };
        for path in [&self.modules, &self.script] {
            let path = path.to_str().context("a path that is not UTF-8")?;
            if path.contains([' ', ',']) {
                bail!("QEMU and the kernel take no path with blanks or commas: {path}");
            }
        }
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-nodefaults",
                "-nographic",
                "-no-reboot",
                "-serial",
                "stdio",
            ])
            .args(["-accel", if kvm { "kvm" } else { "tcg,thread=multi" }])
            .args(["-cpu", if kvm { "host" } else { "max" }])
            .args(["-smp", &PROCESSORS.to_string()])
            .args(["-m", &MEMORY_MIB.to_string()])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .arg("-append")
            .arg(format!(
                "console=ttyS0 panic=-1 quiet pgs.guest={}",
                self.script.display()
            ))
            .args(share("host", Path::new("/")))
            .args(share("modules", &self.modules));
        Ok(command)
    }
}

/// The script's parts, one command each.
fn lines(parts: &[&Part], binaries: &Binaries) -> Result<String> {
    let mut lines = String::new();
    for part in parts {
        let (directory, program) = match part.program {
            Program::Pgs => ("tests", binaries.pgs.as_path()),
            Program::Test("lib") => ("pgs-userspace", binaries.test("lib")?),
            Program::Test(name) => ("tests", binaries.test(name)?),
        };
        let directory = workspace::root().join(directory);
        writeln!(lines, "cd {} || fault cd", quoted(&directory)?)?;
        write!(lines, "part {} {}", part.name, part.limit.as_secs())?;
        if let Some((name, value)) = part.variable {
            write!(lines, " env {name}={value}")?;
        }
        write!(lines, " {}", quoted(program)?)?;
        for argument in part.arguments {
            write!(lines, " {argument}")?;
        }
        lines.push('\n');
    }
    Ok(lines)
}

/// What the tests read of their environment.
fn environment(binaries: &Binaries, image: &str) -> Result<String> {
    let mut lines = String::new();
    writeln!(lines, "PGS_BIN={}", quoted(&binaries.pgs)?)?;
    writeln!(
        lines,
        "{}={}",
        postgres_image::VARIABLE,
        quoted(Path::new(image))?
    )?;
    writeln!(lines, "CARGO_TARGET_DIR={}", quoted(&workspace::target())?)?;
    Ok(lines)
}

/// For a shell.
fn quoted(path: &Path) -> Result<String> {
    let path = path.to_str().context("a path that is not UTF-8")?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::super::plan::PARTS;
    use super::*;

    #[test]
    fn every_part_is_a_line_that_a_shell_understands() {
        let program = PathBuf::from("/a b/program");
        let binaries = Binaries {
            pgs: program.clone(),
            tests: ["lib", "e2e", "keeper"]
                .map(|name| (name.to_owned(), program.clone()))
                .into(),
        };
        let parts: Vec<_> = PARTS.iter().collect();
        let script = format!(
            "part() {{ [ \"$2\" -gt 0 ] && echo \"$1 $3 $4\"; }}; cd() {{ :; }}\n{}",
            lines(&parts, &binaries).unwrap()
        );
        let said = process::output(Command::new("bash").args(["-c", &script])).unwrap();
        assert_eq!(said.lines().count(), PARTS.len(), "{said}");
        assert!(said.contains("canaries /a b/program doctor"), "{said}");
        assert!(said.contains("idle env PGS_TEST_SOAK=60"), "{said}");
    }
}
