//! The certificates of servers and clients, made with `openssl`.

use super::TENANT;
use super::mode::DOMAIN;
use crate::process;
use anyhow::Result;
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

/// Two authorities, and what the first has signed: the server's certificate, which is good for
/// every name that clients connect to, one for the tenant's role and one for another role. The
/// second has signed one for the tenant's role, too.
pub(super) fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for authority in ["ca", "stranger"] {
        let (key, certificate) = (format!("{authority}.key"), format!("{authority}.crt"));
        let subject = format!("/CN={authority} of conformance");
        let mut arguments = vec!["req", "-x509", "-days", "2", "-subj", &subject];
        arguments.extend(["-keyout", &key, "-out", &certificate]);
        arguments.extend(KEY);
        openssl(directory, &arguments)?;
    }
    let names = format!("DNS:localhost,IP:127.0.0.1,DNS:{TENANT}.{DOMAIN}");
    sign(directory, "ca", "server", "localhost", &names)?;
    for (authority, name, role) in [
        ("ca", "client", TENANT),
        ("ca", "other", "somebody"),
        ("stranger", "foreign", TENANT),
    ] {
        sign(directory, authority, name, role, &format!("DNS:{role}"))?;
    }
    Ok(())
}

fn sign(directory: &Path, authority: &str, name: &str, common: &str, names: &str) -> Result<()> {
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
