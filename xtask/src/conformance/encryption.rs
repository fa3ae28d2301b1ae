//! What `pgs serve` and clients need for TLS, and how clients are told of it.

use super::certificates::{authority, ensure_openssl, sign};
use super::ground::Ground;
use crate::process;
use crate::report::Step;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every name under which clients find the router.
const NAMES: &str = "DNS:localhost,IP:127.0.0.1";
/// What is asked of clients, in the word that libpq and most drivers share: that the certificate is
/// of the authority, and in the name that was connected to.
pub(super) const MODE: &str = "verify-full";

/// Gives pgs a certificate for all names, by an authority of the run's own. The authority's
/// certificate is what clients have to trust.
pub(super) fn install(ground: &Ground) -> Result<PathBuf> {
    let directory = ground.directory().join("authority");
    let root = directory.join("ca.crt");
    if !root.exists() {
        ensure_openssl(&Step::new("openssl"))?;
        fs::create_dir_all(&directory)?;
        authority(&directory, "ca")?;
        sign(&directory, "ca", "server", "localhost", NAMES)?;
    }
    let mut set = ground.pgs();
    set.args(["tls", "set", "--default", "--certificate"])
        .arg(directory.join("server.crt"))
        .arg("--key")
        .arg(directory.join("server.key"));
    process::output(&mut set)?;
    Ok(root)
}

/// Takes away what another subject's run has left: pgs then offers no TLS.
pub(super) fn remove(ground: &Ground) -> Result<()> {
    let directory = ground.state_directory().join("tls");
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}

/// Tells a program that connects through libpq. Nothing where there is no TLS.
pub(super) fn tell_libpq(client: &mut Command, root: Option<&Path>) {
    if let Some(root) = root {
        client.env("PGSSLMODE", MODE).env("PGSSLROOTCERT", root);
    }
}

/// The parameters of a URI that libpq's words are used in, with the `?`. Nothing where there is no
/// TLS.
pub(super) fn parameters(root: Option<&Path>) -> String {
    root.map_or_else(String::new, |root| {
        format!("?sslmode={MODE}&sslrootcert={}", root.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_to_verify_and_nothing_without_tls() {
        assert_eq!(parameters(None), "");
        let root = Path::new("/tmp/ca.crt");
        assert_eq!(
            parameters(Some(root)),
            "?sslmode=verify-full&sslrootcert=/tmp/ca.crt"
        );
        let mut client = Command::new("client");
        tell_libpq(&mut client, None);
        assert_eq!(client.get_envs().count(), 0);
        tell_libpq(&mut client, Some(root));
        assert_eq!(client.get_envs().count(), 2);
    }
}
