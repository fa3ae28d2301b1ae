//! Debian's kernels: fetched as packages, unpacked, never installed.

use crate::apt::{Elsewhere, Mirror};
use crate::report::Step;
use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Stands for the newest kernel of a release of Debian.
const METAPACKAGE: &str = "linux-image-amd64";

/// How the package that it stands for begins; it may name others beside it.
const PACKAGES: &str = "linux-image-";

/// Where packages keep modules: the first before Debian 13, the second since.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// What `uname -r` will say.
    pub(super) release: String,
    /// The compressed kernel.
    pub(super) image: PathBuf,
    /// The unpacked package.
    pub(super) root: PathBuf,
    /// The directory with one directory for each kernel's modules.
    pub(super) modules: PathBuf,
}

/// Fetches the kernel of a release of Debian from the machine's own mirror.
pub(super) fn fetch(suite: &str) -> Result<Kernel> {
    let step = Step::new("package");
    let mirror = Mirror::of_this_machine(&step)?;
    if mirror.origin != "Debian" {
        bail!("kernels come from Debian's archive; this machine's sources name another");
    }
    let directory = workspace::scratch("kernels")?.join(suite);
    let apt = Elsewhere::fetch(&step, &directory.join("apt"), &mirror, &[suite])?;
    let package = apt.stands_for(METAPACKAGE, PACKAGES)?;
    let versions = apt.versions(&package)?;
    let version = versions
        .first()
        .with_context(|| format!("{suite} has no {package}, which its {METAPACKAGE} wants"))?;
    let root = directory.join(format!("{package}_{version}"));
    if !root.exists() {
        step.doing(format_args!("fetching {package} {version}"));
        let archive = apt.download(&step, &package, version)?;
        unpack(&archive, &root)?;
        fs::remove_file(&archive)?;
    }
    let kernel = Kernel::find(root)?;
    step.done(format_args!("{package} {version}"));
    Ok(kernel)
}

/// Half of a package never stands under its name.
fn unpack(archive: &Path, root: &Path) -> Result<()> {
    let half = beside(root, "half");
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    let mut command = Command::new("dpkg-deb");
    process::output(command.arg("--extract").arg(archive).arg(&half))?;
    let kernel = Kernel::find(half.clone())?;
    let mut command = Command::new("depmod");
    process::output(
        command
            .arg("--basedir")
            .arg(kernel.base())
            .arg(&kernel.release),
    )?;
    fs::rename(&half, root)?;
    Ok(())
}

/// The path of what belongs to an unpacked package and lies beside it.
pub(super) fn beside(root: &Path, ending: &str) -> PathBuf {
    let mut path = root.as_os_str().to_owned();
    path.push(format!(".{ending}"));
    path.into()
}

impl Kernel {
    fn find(root: PathBuf) -> Result<Self> {
        let modules = MODULES
            .map(|path| root.join(path))
            .into_iter()
            .find(|path| path.is_dir())
            .with_context(|| format!("no modules in {}", root.display()))?;
        let release = only_entry(&modules, "")?;
        let image = root
            .join("boot")
            .join(only_entry(&root.join("boot"), "vmlinuz-")?);
        Ok(Self {
            release,
            image,
            root,
            modules,
        })
    }

    /// The directory that has `lib/modules`, which is what module tools are told.
    pub(super) fn base(&self) -> PathBuf {
        match self.modules.strip_prefix(&self.root) {
            Ok(path) if path.starts_with("usr") => self.root.join("usr"),
            _ => self.root.clone(),
        }
    }
}

/// The name of the one entry of a directory that begins like this.
fn only_entry(directory: &Path, prefix: &str) -> Result<String> {
    let mut names = Vec::new();
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("read {}", directory.display()))? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.retain(|name| name.starts_with(prefix));
    match names.as_slice() {
        [name] => Ok(name.clone()),
        _ => bail!(
            "{} has {} entries `{prefix}*`, not one",
            directory.display(),
            names.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_places_of_modules_are_known() {
        for (place, base) in [("lib/modules", ""), ("usr/lib/modules", "usr")] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join(place).join("6.1.0-9-amd64")).unwrap();
            fs::create_dir_all(root.path().join("boot")).unwrap();
            fs::write(root.path().join("boot/vmlinuz-6.1.0-9-amd64"), "").unwrap();
            fs::write(root.path().join("boot/config-6.1.0-9-amd64"), "").unwrap();
            let kernel = Kernel::find(root.path().to_owned()).unwrap();
            assert_eq!(kernel.release, "6.1.0-9-amd64");
            assert_eq!(kernel.base(), root.path().join(base));
        }
    }
}
