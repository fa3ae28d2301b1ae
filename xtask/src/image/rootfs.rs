//! The image's root file system: bootstrapped, given PostgreSQL, slimmed.

use super::suite::Suite;
use crate::apt::Mirror;
use crate::process;
use crate::report::Step;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// uid and gid of `postgres` in the official image: volumes move between the two.
const POSTGRES_ID: &str = "999";
/// Files that tell dpkg and apt how to behave while the image is made.
const DPKG_EXCLUDES: &str = "etc/dpkg/dpkg.cfg.d/image";
const MACHINE_APT: &str = "etc/apt/apt.conf.d/99machine";
const NO_SERVICES: &str = "usr/sbin/policy-rc.d";
/// What a server does not read, in the image's root.
const SUPERFLUOUS: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/lintian",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
    "var/lib/postgresql",
    "boot",
    MACHINE_APT,
    NO_SERVICES,
    "etc/resolv.conf",
];

/// A root file system under way.
pub(super) struct Rootfs {
    path: PathBuf,
}

impl Rootfs {
    /// Bootstraps the smallest system of `suite` into `path`; what is there is replaced.
    pub(super) fn bootstrap(
        step: &Step,
        path: &Path,
        mirror: &Mirror,
        suite: &Suite,
    ) -> Result<Self> {
        let rootfs = Self {
            path: path.to_owned(),
        };
        rootfs.remove()?;
        step.doing(format_args!(
            "bootstrapping {} (about half a minute)",
            suite.name
        ));
        process::followed(
            step,
            Command::new("debootstrap")
                .args(["--variant=minbase", &suite.name])
                .arg(path)
                .args([&mirror.uri, &suite.script]),
        )?;
        Ok(rootfs)
    }

    /// Installs PostgreSQL 18 with the user and the locale of the official image, and gives the
    /// version of the package.
    pub(super) fn install_postgresql(&self, step: &Step) -> Result<String> {
        step.doing("installing PostgreSQL 18 into it");
        self.prepare_packages()?;
        let _proc = Mounted::proc(self.path.join("proc"))?;
        self.chroot(
            step,
            "groupadd",
            &["--system", "--gid", POSTGRES_ID, "postgres"],
        )?;
        self.chroot(
            step,
            "useradd",
            &[
                "--system",
                "--gid",
                POSTGRES_ID,
                "--uid",
                POSTGRES_ID,
                "--shell",
                "/bin/bash",
                "--home-dir",
                "/var/lib/postgresql",
                "postgres",
            ],
        )?;
        self.chroot(step, "apt-get", &["update"])?;
        let packages = ["postgresql-18", "locales", "xz-utils", "zstd"];
        let install = ["install", "--yes", "--no-install-recommends"];
        self.chroot(step, "apt-get", &[&install[..], &packages[..]].concat())?;
        self.chroot(
            step,
            "localedef",
            &[
                "--no-archive",
                "-i",
                "en_US",
                "-c",
                "-f",
                "UTF-8",
                "en_US.UTF-8",
            ],
        )?;
        self.listen_everywhere()?;
        process::output(
            Command::new("dpkg-query")
                .arg(format!(
                    "--admindir={}",
                    self.path.join("var/lib/dpkg").display()
                ))
                .args(["-W", "-f", "${Version}", "postgresql-18"]),
        )
    }

    /// Puts the entry point where the official image has it, and its directories in place.
    pub(super) fn place_entrypoint(&self, script: &str) -> Result<()> {
        let path = self.path.join("usr/local/bin/docker-entrypoint.sh");
        fs::write(&path, script).with_context(|| format!("write {}", path.display()))?;
        set_mode(&path, 0o755)?;
        Ok(fs::create_dir_all(
            self.path.join("docker-entrypoint-initdb.d"),
        )?)
    }

    /// Removes what a server does not read, and everything made only for building.
    pub(super) fn slim(&self) -> Result<()> {
        for part in SUPERFLUOUS {
            remove(&self.path.join(part))?;
        }
        for (part, mode) in [
            ("var/log", 0o755),
            ("boot", 0o755),
            ("var/lib/apt/lists", 0o755),
        ] {
            self.directory(part, mode)?;
        }
        // Docker fills a new volume from here, with this owner and mode.
        for (part, mode) in [("var/lib/postgresql", 0o1777), ("run/postgresql", 0o3777)] {
            let directory = self.directory(part, mode)?;
            let owner = format!("{POSTGRES_ID}:{POSTGRES_ID}");
            process::output(Command::new("chown").arg(owner).arg(&directory))?;
            set_mode(&directory, mode)?;
        }
        Ok(())
    }

    /// The directory that becomes the image's root.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the tree.
    pub(super) fn remove(&self) -> Result<()> {
        // A run that was killed may have left it mounted; deleting through it must not happen.
        let proc = self.path.join("proc");
        if proc.join("self").exists() {
            process::output(Command::new("umount").arg(&proc))?;
        }
        remove(&self.path)
    }

    fn prepare_packages(&self) -> Result<()> {
        let excludes = ["doc", "man", "info", "locale", "lintian"]
            .map(|part| format!("path-exclude=/usr/share/{part}/*\n"))
            .concat();
        self.write(DPKG_EXCLUDES, &excludes)?;
        self.write(
            "etc/postgresql-common/createcluster.conf",
            "create_main_cluster = false\n",
        )?;
        self.write(NO_SERVICES, "#!/bin/sh\nexit 101\n")?;
        set_mode(&self.path.join(NO_SERVICES), 0o755)?;
        // Proxies, certificates and the like are the machine's.
        let settings = process::output(Command::new("apt-config").args(["dump", "Acquire"]))?;
        self.write(MACHINE_APT, &settings)?;
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        self.write("etc/resolv.conf", &resolver)
    }

    /// The server in a container is reached from outside of it, as in the official image.
    fn listen_everywhere(&self) -> Result<()> {
        let part = "usr/share/postgresql/18/postgresql.conf.sample";
        let sample = fs::read_to_string(self.path.join(part))
            .with_context(|| format!("read {part} of the package"))?;
        self.write(part, &format!("{sample}\nlisten_addresses = '*'\n"))
    }

    fn chroot(&self, step: &Step, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("chroot");
        command
            .arg(&self.path)
            .arg(program)
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        process::followed(step, &mut command)
    }

    fn write(&self, part: &str, content: &str) -> Result<()> {
        let path = self.path.join(part);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // A symbolic link in the tree would be followed out of it.
        if path.is_symlink() {
            fs::remove_file(&path)?;
        }
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    fn directory(&self, part: &str, mode: u32) -> Result<PathBuf> {
        let path = self.path.join(part);
        fs::create_dir_all(&path)?;
        set_mode(&path, mode)?;
        Ok(path)
    }
}

/// A mount that ends with its scope.
struct Mounted {
    path: PathBuf,
}

impl Mounted {
    fn proc(path: PathBuf) -> Result<Self> {
        process::output(
            Command::new("mount")
                .args(["-t", "proc", "proc"])
                .arg(&path),
        )?;
        Ok(Self { path })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // `Rootfs::remove` looks again before it deletes anything.
        process::succeeds(Command::new("umount").arg(&self.path));
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else if path.exists() || path.is_symlink() {
        fs::remove_file(path)
    } else {
        Ok(())
    };
    removed.with_context(|| format!("remove {}", path.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}
