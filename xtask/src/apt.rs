//! Debian's and Ubuntu's packages: installing them, and looking into suites the machine does not
//! use, always from the mirror its own sources name.

use crate::process;
use crate::report::Step;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LISTS: &str = "/var/lib/apt/lists";

/// Whether this machine has apt and this process may use it to install.
pub(crate) fn can_install() -> bool {
    process::find("apt-get").is_some() && nix::unistd::geteuid().is_root()
}

/// The packages of those programs, each with its package, that are not here. Where there are any,
/// and they cannot be installed, that is an error.
pub(crate) fn missing<'name>(programs: &[(&str, &'name str)]) -> Result<Vec<&'name str>> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, _)| process::find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() && !can_install() {
        bail!(
            "not installed: {}; as root on Debian or Ubuntu this command installs them",
            missing.join(", ")
        );
    }
    Ok(missing)
}

/// Installs packages without recommendations, refreshing the package lists when they are needed.
pub(crate) fn install(step: &Step, packages: &[&str]) -> Result<()> {
    step.doing(format_args!("installing {} with apt", packages.join(", ")));
    if !lists_present() {
        refresh(step)?;
    }
    if process::followed(step, &mut install_command(packages)).is_err() {
        // Lists that are older than the mirror name files that are gone from it.
        refresh(step)?;
        process::followed(step, &mut install_command(packages))?;
    }
    Ok(())
}

fn install_command(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn refresh(step: &Step) -> Result<()> {
    process::followed(step, Command::new("apt-get").arg("update"))
        .context("apt cannot reach the mirrors in its sources; check them and the network")
}

fn lists_present() -> bool {
    fs::read_dir(LISTS).is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().ends_with("_Packages"))
    })
}

/// The archive of the machine's own distribution, as its apt sources name it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// `Debian` or `Ubuntu`, from the signed release file.
    pub(crate) origin: String,
    /// Base address of the archive.
    pub(crate) uri: String,
    /// Codename of the release the machine runs, such as `bookworm`.
    pub(crate) codename: String,
}

impl Mirror {
    /// Reads the mirror out of apt's own view of its sources.
    pub(crate) fn of_this_machine(step: &Step) -> Result<Self> {
        if process::find("apt-get").is_none() {
            bail!("there is no apt here; this step needs Debian or Ubuntu");
        }
        if !lists_present() {
            refresh(step)?;
        }
        let format = "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)";
        let targets = process::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            format,
            "Created-By: Packages",
        ]))?;
        Self::parse(&targets).context(
            "apt's sources name no Debian or Ubuntu archive; add the distribution's own mirror",
        )
    }

    fn parse(targets: &str) -> Option<Self> {
        targets.lines().find_map(|line| {
            let mut fields = line.split('|');
            let origin = fields.next()?;
            let label = fields.next()?;
            let codename = fields.next()?;
            let component = fields.next()?;
            let uri = fields.next()?;
            let plain_suite = !codename.contains('-');
            let ours = matches!(origin, "Debian" | "Ubuntu") && label == origin;
            (ours && plain_suite && component == "main").then(|| Self {
                origin: origin.to_owned(),
                uri: uri.trim_end_matches('/').to_owned(),
                codename: codename.to_owned(),
            })
        })
    }
}

/// Apt over suites of our choosing, with lists and sources of its own: the machine's stay as they
/// are. Proxy and certificate settings are the machine's.
pub(crate) struct Elsewhere {
    directory: PathBuf,
}

impl Elsewhere {
    /// Fetches the package lists of `suites` into `directory`. A suite that is not there fails.
    pub(crate) fn fetch(
        step: &Step,
        directory: &Path,
        mirror: &Mirror,
        suites: &[&str],
    ) -> Result<Self> {
        Self::fetch_kind("deb", step, directory, mirror, suites)
    }

    /// The same for source packages.
    pub(crate) fn fetch_sources(
        step: &Step,
        directory: &Path,
        mirror: &Mirror,
        suites: &[&str],
    ) -> Result<Self> {
        Self::fetch_kind("deb-src", step, directory, mirror, suites)
    }

    fn fetch_kind(
        kind: &str,
        step: &Step,
        directory: &Path,
        mirror: &Mirror,
        suites: &[&str],
    ) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let sources: String = suites
            .iter()
            .map(|suite| format!("{kind} {} {suite} main\n", mirror.uri))
            .collect();
        fs::write(directory.join("sources.list"), sources)?;
        let apt = Self {
            directory: directory.to_owned(),
        };
        process::followed(step, apt.command("apt-get").arg("update"))
            .with_context(|| format!("fetch the package lists of {}", suites.join(", ")))?;
        Ok(apt)
    }

    /// Every version of `package` in these suites, the newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = process::output(self.command("apt-cache").args(["madison", package]))?;
        let version = |line: &str| Some(line.split('|').nth(1)?.trim().to_owned());
        Ok(table.lines().filter_map(version).collect())
    }

    /// The package that a metapackage of these suites stands for: the first it depends on that
    /// begins like this.
    pub(crate) fn stands_for(&self, metapackage: &str, prefix: &str) -> Result<String> {
        let shown = ["show", "--no-all-versions", metapackage];
        let record = process::output(self.command("apt-cache").args(shown))?;
        first_dependency(&record, prefix)
            .map(str::to_owned)
            .with_context(|| format!("{metapackage} depends on no {prefix}*"))
    }

    /// Downloads `package` in exactly this version and gives the path of the archive.
    pub(crate) fn download(&self, step: &Step, package: &str, version: &str) -> Result<PathBuf> {
        let folder = self.directory.join("download");
        fs::create_dir_all(&folder)?;
        let mut command = self.command("apt-get");
        // Apt drops to its own user for downloads, which may not be able to write here.
        command
            .args(["-o", "APT::Sandbox::User=root", "download"])
            .arg(format!("{package}={version}"))
            .current_dir(&folder);
        process::followed(step, &mut command)?;
        fs::read_dir(&folder)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt said it downloaded {package} {version} but left no file"))
    }

    /// Every version of a source package in these suites.
    pub(crate) fn source_versions(&self, package: &str) -> Result<Vec<String>> {
        let records = process::output(self.command("apt-cache").args(["showsrc", package]))?;
        let version = |line: &str| Some(line.strip_prefix("Version: ")?.trim().to_owned());
        Ok(records.lines().filter_map(version).collect())
    }

    /// Downloads the files of a source package and gives the directory they are in. Apt checks each
    /// against the signed index.
    ///
    /// Mirrors that hold a part of a package's files are met with: whether what is there will do is
    /// for the caller to see.
    pub(crate) fn download_source(
        &self,
        step: &Step,
        package: &str,
        version: &str,
    ) -> Result<PathBuf> {
        let folder = self.directory.join("source");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let mut command = self.command("apt-get");
        command
            .args(["-o", "APT::Sandbox::User=root"])
            .args(["source", "--download-only"])
            .arg(format!("{package}={version}"))
            .current_dir(&folder);
        if let Err(error) = process::followed(step, &mut command)
            && fs::read_dir(&folder)?.next().is_none()
        {
            return Err(error);
        }
        Ok(folder)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |part: &str| self.directory.join(part).display().to_string();
        command
            .args([
                "-o",
                &format!("Dir::Etc::sourcelist={}", at("sources.list")),
            ])
            .args(["-o", "Dir::Etc::sourceparts=/dev/null"])
            .args(["-o", &format!("Dir::State::Lists={}", at("lists"))])
            .args(["-o", &format!("Dir::Cache={}", at("cache"))])
            .args(["-o", "Acquire::Languages=none"])
            .args([
                "-o",
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            ]);
        command
    }
}

/// Name of the first package in the `Depends` field of a package's record that begins like this.
fn first_dependency<'record>(record: &'record str, prefix: &str) -> Option<&'record str> {
    let names = record
        .lines()
        .find_map(|line| line.strip_prefix("Depends:"))?;
    names
        .split([',', '|', '(', ' '])
        .find(|name| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metapackage_names_the_package_that_it_stands_for() {
        let record = "Package: linux-image-amd64\nVersion: 7.2.12-1\nDepends: \
                      linux-base-amd64 (= 7.2.12-1), linux-image-7.2.12-amd64 (= 7.2.12-1)\n";
        let first = |prefix| first_dependency(record, prefix);
        assert_eq!(first("linux-image-"), Some("linux-image-7.2.12-amd64"));
        assert_eq!(first("other-"), None);
        assert_eq!(first_dependency("Package: x\nPre-Depends: y\n", "y"), None);
    }

    #[test]
    fn the_mirror_is_the_distributions_own_archive() {
        let targets = "Vendor|Vendor|stable|main|http://vendor.invalid/\n\
                       Debian|Debian-Security|bookworm-security|main|http://m.invalid/security/\n\
                       Debian|Debian|bookworm-updates|main|http://m.invalid/debian/\n\
                       Debian|Debian|bookworm|main|http://m.invalid/debian/\n";
        let mirror = Mirror::parse(targets).unwrap();
        assert_eq!(mirror.uri, "http://m.invalid/debian");
        assert_eq!(mirror.codename, "bookworm");
        assert_eq!(
            Mirror::parse("$(ORIGIN)|$(LABEL)|x|main|http://m.invalid/"),
            None
        );
    }
}
