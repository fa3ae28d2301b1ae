//! The certificates of servers and clients.

use super::super::certificates::{authority, sign};
use super::TENANT;
use super::mode::DOMAIN;
use anyhow::Result;
use std::fs;
use std::path::Path;

/// Two authorities, and what the first has signed: the server's certificate, which is good for
/// every name that clients connect to, one for the tenant's role and one for another role. The
/// second has signed one for the tenant's role, too.
pub(super) fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for name in ["ca", "stranger"] {
        authority(directory, name)?;
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
