//! A root file system with systemd and the unit in it.

use crate::report::Step;
use crate::{apt, process, workspace};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Suites with a systemd whose descriptor store tells that it is there (254), newest first.
const SUITES: [&str; 2] = ["trixie", "resolute"];

/// What of a booting system would change the machine, or waits for what is not there.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "getty@.service",
    "kmod-static-nodes.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
];

/// Where a distribution package would put what lies in `packaging/`.
const PACKAGED: [(&str, &str); 3] = [
    ("pgs.service", "usr/lib/systemd/system/pgs.service"),
    ("sysusers.d/pgs.conf", "usr/lib/sysusers.d/pgs.conf"),
    ("tmpfiles.d/pgs.conf", "usr/lib/tmpfiles.d/pgs.conf"),
];

/// The tree, ready to be booted.
pub(super) struct Rootfs {
    path: PathBuf,
}

impl Rootfs {
    /// Bootstraps it where it is not there, and puts the unit into it as it is now.
    pub(super) fn ensure(force: bool) -> Result<Self> {
        let step = Step::new("root file system");
        let path = workspace::scratch("unit")?.join("root");
        let rootfs = Self { path };
        if force || !rootfs.path.join("lib/systemd/systemd").exists() {
            rootfs.bootstrap(&step)?;
        }
        rootfs.mask()?;
        rootfs.install()?;
        let version = process::output(rootfs.chroot("/lib/systemd/systemd").arg("--version"))?;
        let version = version.lines().next().unwrap_or_default().to_owned();
        step.done(version);
        Ok(rootfs)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn bootstrap(&self, step: &Step) -> Result<()> {
        if process::find("debootstrap").is_none() {
            apt::install(step, &["debootstrap"])?;
        }
        let mirror = apt::Mirror::of_this_machine(step)?;
        let suite = SUITES[usize::from(mirror.origin == "Ubuntu")];
        step.doing(format_args!("bootstrapping {suite} with systemd"));
        if self.path.exists() {
            fs::remove_dir_all(&self.path)?;
        }
        process::followed(
            step,
            Command::new("debootstrap")
                .args(["--variant=minbase", "--include=systemd,libseccomp2", suite])
                .arg(&self.path)
                .args([&mirror.uri, "/usr/share/debootstrap/scripts/sid"]),
        )
    }

    fn mask(&self) -> Result<()> {
        let units = self.path.join("etc/systemd/system");
        for unit in MASKED {
            let path = units.join(unit);
            if !path.is_symlink() {
                symlink("/dev/null", &path).with_context(|| format!("mask {unit}"))?;
            }
        }
        Ok(())
    }

    fn install(&self) -> Result<()> {
        for (part, place) in PACKAGED {
            let place = self.path.join(place);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent)?;
            }
            let part = workspace::root().join("packaging").join(part);
            fs::copy(&part, &place).with_context(|| format!("copy {}", part.display()))?;
        }
        // Of a run before.
        let drop_ins = self.path.join("etc/systemd/system/pgs.service.d");
        if drop_ins.exists() {
            fs::remove_dir_all(drop_ins)?;
        }
        let configuration = self.path.join("etc/pgs/pgs.toml");
        if configuration.exists() {
            fs::remove_file(configuration)?;
        }
        process::output(self.chroot("systemd-sysusers").arg("pgs.conf")).map(drop)
    }

    fn chroot(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.path).arg(program);
        command
    }
}
