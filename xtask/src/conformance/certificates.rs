//! Authorities and the certificates that they sign, made with `openssl`.

use crate::report::Step;
use crate::{apt, process};
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

/// What makes them.
pub(super) fn ensure_openssl(step: &Step) -> Result<()> {
    if process::find("openssl").is_some() {
        return Ok(());
    }
    if !apt::can_install() {
        bail!("`openssl` is not installed; run `sudo apt-get install openssl`");
    }
    apt::install(step, &["openssl"])
}

/// `<name>.crt` and `<name>.key` in the directory: an authority.
pub(super) fn authority(directory: &Path, name: &str) -> Result<()> {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
    let subject = format!("/CN={name} of conformance");
    let mut arguments = vec!["req", "-x509", "-days", "2", "-subj", &subject];
    arguments.extend(["-keyout", &key, "-out", &certificate]);
    arguments.extend(KEY);
    openssl(directory, &arguments)
}

/// `<name>.crt` and `<name>.key` in the directory: a certificate by that authority, for a common
/// name and for other names as openssl writes them.
pub(super) fn sign(
    directory: &Path,
    authority: &str,
    name: &str,
    common: &str,
    names: &str,
) -> Result<()> {
    let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
    let subject = format!("/CN={common}");
    let mut arguments = vec!["req", "-subj", &subject, "-keyout", &key, "-out", &request];
    arguments.extend(KEY);
    openssl(directory, &arguments)?;
    let extensions = format!("{name}.ext");
    fs::write(
        directory.join(&extensions),
        format!("subjectAltName={names}\n"),
    )?;
    let (signer, signer_key) = (format!("{authority}.crt"), format!("{authority}.key"));
    let certificate = format!("{name}.crt");
    let mut arguments = vec!["x509", "-req", "-days", "2", "-in", &request];
    arguments.extend(["-CA", &signer, "-CAkey", &signer_key, "-CAcreateserial"]);
    arguments.extend(["-extfile", &extensions, "-out", &certificate]);
    openssl(directory, &arguments)?;
    // libpq and PostgreSQL refuse keys that others can read.
    let mut restrict = Command::new("chmod");
    process::output(restrict.arg("600").arg(directory.join(&key))).map(drop)
}

fn openssl(directory: &Path, arguments: &[&str]) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(directory).args(arguments);
    process::output(&mut openssl).map(drop)
}
