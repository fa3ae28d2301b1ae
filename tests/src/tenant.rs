//! One tenant, from `pgs create` to `pgs remove`.

use std::fs;
use std::path::PathBuf;

use crate::installation;
use crate::installation::Installation;

/// A tenant of a test. Removed when dropped.
#[derive(Debug)]
pub struct Tenant<'a> {
    installation: &'a Installation,
    login: Login,
}

/// What a client needs to log in.
#[derive(Debug, Clone)]
pub struct Login {
    /// Role and, for a tenant, its id.
    pub user: String,
    /// Database.
    pub database: String,
    /// In the clear: it is a test's.
    pub password: String,
}

impl Login {
    /// A login where user and database are the tenant's id.
    pub fn of_tenant(id: &str, password: &str) -> Self {
        Self {
            user: id.into(),
            database: id.into(),
            password: password.into(),
        }
    }
}

impl<'a> Tenant<'a> {
    pub(crate) fn create(
        installation: &'a Installation,
        id: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let login = create(installation, id, arguments)?;
        Ok(Self {
            installation,
            login,
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.login.user
    }

    /// Its own role on its own database.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The Unix socket on which its server listens.
    pub fn socket(&self) -> PathBuf {
        self.installation.socket_of(self.id())
    }
}

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        remove(self.installation, self.id());
    }
}

/// Makes a tenant that stays until [`remove`].
pub(crate) fn create(
    installation: &Installation,
    id: &str,
    arguments: &[&str],
) -> anyhow::Result<Login> {
    // Blanks and quotes, because a password may have them.
    let password = format!("correct horse 'battery' \"{id}\" staple");
    let file = installation.scratch(&format!("{id}.password"));
    fs::write(&file, &password)?;
    let file = file.to_string_lossy();
    let image = installation::image();
    let mut create = vec!["create", id, "--password-file", &file];
    if let Some(image) = &image {
        create.extend(["--image", image]);
    }
    create.extend(arguments);
    installation.router().pgs(&create)?;
    Ok(Login::of_tenant(id, &password))
}

/// Removes a tenant with its container and data.
pub(crate) fn remove(installation: &Installation, id: &str) {
    if let Err(error) = installation.router().pgs(&["remove", id, "--yes"]) {
        crate::stage::warn(&format!("removing tenant {id}: {error:#}"));
    }
}
