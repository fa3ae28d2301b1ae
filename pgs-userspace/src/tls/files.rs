//! Where the files of certificates lie, and writing them.
//!
//! Understood side by side: `<name>/fullchain.pem` with `privkey.pem` (certbot's `live`), and
//! `<name>.crt` with `<name>.key` (lego's `certificates`); in the directory itself or in
//! subdirectories of those two names, so that either tool's can be linked in as it is.

use std::collections::BTreeMap;
use std::fs;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use super::name::CertificateName;
use super::name::NESTED;
use crate::config::directories;
use crate::config::limits::CERTIFICATES_MAX;

const CERTIFICATE_FILE: &str = "fullchain.pem";
const KEY_FILE: &str = "privkey.pem";

/// The two files of one certificate. Either may be missing: who replaces both does it in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate and those that signed it, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// What was found in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Pairs of files by what they are for.
    pub pairs: BTreeMap<CertificateName, Pair>,
    /// What looks like a certificate but cannot be one, and why.
    pub unusable: Vec<(PathBuf, String)>,
}

impl Layout {
    /// Reads the directory; one that does not exist is empty.
    ///
    /// # Errors
    /// A directory exists and cannot be read.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let mut layout = Self::default();
        layout.add(directory)?;
        for nested in NESTED {
            layout.add(&directory.join(nested))?;
        }
        Ok(layout)
    }

    fn add(&mut self, directory: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        // Whatever order the file system has, the same files give the same certificates.
        paths.sort();
        for path in paths {
            self.add_entry(&path);
        }
        Ok(())
    }

    fn add_entry(&mut self, path: &Path) {
        let Some((name, pair)) = pair_at(path) else {
            return;
        };
        if self.pairs.len() >= CERTIFICATES_MAX {
            let why = format!("there are more than {CERTIFICATES_MAX} certificates");
            self.unusable.push((path.to_owned(), why));
            return;
        }
        match CertificateName::from_file_name(&name) {
            Ok(name) => {
                self.pairs.entry(name).or_insert(pair);
            }
            Err(error) => self.unusable.push((path.to_owned(), error.to_string())),
        }
    }
}

/// What an entry of a directory is the certificate of, if it is one.
fn pair_at(path: &Path) -> Option<(String, Pair)> {
    let file_name = path.file_name()?.to_string_lossy();
    let within = Pair {
        certificate: path.join(CERTIFICATE_FILE),
        key: path.join(KEY_FILE),
    };
    if within.certificate.exists() || within.key.exists() {
        return Some((file_name.into_owned(), within));
    }
    // Not `Path::extension`: `example.com` has one too.
    let beside = file_name
        .strip_suffix(".crt")
        .or_else(|| file_name.strip_suffix(".key"));
    let Some(name) = beside else {
        let hidden = is_hidden(&within.certificate) || is_hidden(&within.key);
        return hidden.then(|| (file_name.to_string(), within));
    };
    // lego puts the issuer's certificate beside the chain that has it already.
    if name.ends_with(".issuer") {
        return None;
    }
    let beside = |suffix| path.with_file_name(format!("{name}.{suffix}"));
    let pair = Pair {
        certificate: beside("crt"),
        key: beside("key"),
    };
    Some((name.to_owned(), pair))
}

/// Whether there may be a file that cannot be looked at. It is not gone: reading it tells what is
/// wrong.
fn is_hidden(path: &Path) -> bool {
    // Below a file there is none.
    path.try_exists()
        .is_err_and(|error| error.kind() != io::ErrorKind::NotADirectory)
}

/// Puts a certificate and its key in the place of what was there under that name. The key comes
/// first: who reads between the two finds that they do not fit together, and waits.
///
/// # Errors
/// The file system refuses; then each of the two files is the old or the new one, whole.
pub fn install(
    directory: &Path,
    name: &CertificateName,
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> io::Result<Pair> {
    let layout = Layout::read(directory)?;
    // What is there keeps its layout, or there would be two of one name.
    let pair = layout.pairs.get(name).cloned().unwrap_or_else(|| Pair {
        certificate: directory.join(name.file_name()).join(CERTIFICATE_FILE),
        key: directory.join(name.file_name()).join(KEY_FILE),
    });
    directories::make(directory, 0o750)?;
    replace(&pair.key, key_pem, 0o600)?;
    replace(&pair.certificate, certificate_pem, 0o644)?;
    Ok(pair)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    if !directory.exists() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)?;
        // Whatever the umask takes away; set-group-ID comes from the directory above.
        let group = fs::metadata(directory)?.mode() & 0o2000;
        fs::set_permissions(directory, Permissions::from_mode(0o750 | group))?;
    }
    // Set-group-ID: the directory, and what is made in it, is for its group too, which is that of a
    // router that runs as its own user.
    let mode = match fs::metadata(directory)?.mode() & 0o2000 {
        0 => mode,
        _ => mode | 0o040,
    };
    let mut file_name = path.file_name().unwrap_or_default().to_owned();
    file_name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(file_name);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        // The umask may have taken away what the router needs to read it.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    let written = write();
    if written.is_err() {
        // What failed is told; that its remains could not be removed adds nothing.
        fs::remove_file(&fresh).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    fn names(layout: &Layout) -> Vec<String> {
        layout.pairs.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn certbot_and_lego_side_by_side() {
        let root = tempfile::tempdir().unwrap();
        let (tls, other) = (root.path().join("tls"), root.path().join("letsencrypt"));
        assert_eq!(Layout::read(&tls).unwrap(), Layout::default());
        touch(&tls.join("default/fullchain.pem"));
        touch(&tls.join("default/privkey.pem"));
        for file in ["cert1.pem", "fullchain1.pem", "privkey1.pem"] {
            touch(&other.join("archive/b.example.com").join(file));
        }
        touch(&other.join("live/README"));
        for (link, target) in [
            ("fullchain.pem", "fullchain1.pem"),
            ("privkey.pem", "privkey1.pem"),
        ] {
            let live = other.join("live/b.example.com");
            fs::create_dir_all(&live).unwrap();
            let target = Path::new("../../archive/b.example.com").join(target);
            symlink(target, live.join(link)).unwrap();
        }
        symlink(other.join("live"), tls.join("live")).unwrap();
        for file in [
            "c.example.com.crt",
            "c.example.com.key",
            "c.example.com.issuer.crt",
            "c.example.com.json",
            "_.d.example.com.crt",
            "not a name.crt",
        ] {
            touch(&tls.join("certificates").join(file));
        }
        let layout = Layout::read(&tls).unwrap();
        let expected = [
            "default",
            "*.d.example.com",
            "b.example.com",
            "c.example.com",
        ];
        assert_eq!(names(&layout), expected);
        assert_eq!(layout.unusable.len(), 1, "{:?}", layout.unusable);
    }

    #[test]
    fn installed_files_are_private_and_replace_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let tls = root.path().join("tls");
        let name = CertificateName::host("*.example.com").unwrap();
        install(&tls, &name, b"old", b"old key").unwrap();
        let pair = install(&tls, &name, b"new", b"new key").unwrap();
        assert_eq!(fs::read(&pair.certificate).unwrap(), b"new");
        assert_eq!(fs::read(&pair.key).unwrap(), b"new key");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&pair.key), mode(&tls)), (0o600, 0o750));
        // A shared directory: its group may read the key.
        fs::set_permissions(&tls, Permissions::from_mode(0o2750)).unwrap();
        fs::remove_dir_all(pair.key.parent().unwrap()).unwrap();
        let pair = install(&tls, &name, b"certificate", b"key").unwrap();
        assert_eq!(mode(&pair.key), 0o640);
        assert_eq!(fs::read_dir(tls.join("_.example.com")).unwrap().count(), 2);
        touch(&tls.join("lego.example.com.key"));
        let lego = CertificateName::host("lego.example.com").unwrap();
        let pair = install(&tls, &lego, b"new", b"new key").unwrap();
        assert_eq!(pair.certificate, tls.join("lego.example.com.crt"));
    }
}
