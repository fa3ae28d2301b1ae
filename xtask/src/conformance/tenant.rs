//! The tenant that a suite runs on, and what is done inside its server beforehand.

use super::ground::Ground;
use crate::{process, report};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Of every role of every suite; none of them is reached from outside of this machine.
pub(super) const PASSWORD: &str = "password";
/// Test suites make tables in parallel; what pgs gives by default is for a quiet tenant.
const MEMORY: &str = "2g";

/// A tenant whose role is a superuser, as these suites expect. It goes when it is dropped.
pub(super) struct Tenant<'a> {
    ground: &'a Ground,
    pub(super) id: &'static str,
    /// Docker's name for it.
    pub(super) container: String,
}

impl<'a> Tenant<'a> {
    pub(super) fn create(ground: &'a Ground, id: &'static str, image: &str) -> Result<Self> {
        let file = ground.directory().join("password");
        fs::write(&file, PASSWORD)?;
        let mut create = ground.pgs();
        create
            .args(["create", id, "--enable", "--superuser"])
            .args(["--replication", "--memory", MEMORY, "--image", image])
            .arg("--password-file")
            .arg(&file);
        process::output(&mut create)?;
        let mut tenant = Self {
            ground,
            id,
            container: String::new(),
        };
        tenant.container = tenant.find_container()?;
        Ok(tenant)
    }

    fn find_container(&self) -> Result<String> {
        let state = self.ground.state_directory().canonicalize()?;
        let filter = format!("label=dev.pgs.state-dir={}", state.display());
        let mut list = Command::new("docker");
        list.args(["ps", "--format", "{{.Names}}", "--filter", &filter]);
        let names = process::output(&mut list)?;
        names
            .lines()
            .find(|name| name.ends_with(&format!("-{}", self.id)))
            .map(str::to_owned)
            .with_context(|| format!("no container of tenant {} among: {names}", self.id))
    }

    /// The directory of its server's socket.
    pub(super) fn socket_directory(&self) -> PathBuf {
        self.ground.state_directory().join("sockets").join(self.id)
    }

    /// Statements as the superuser, each on its own: some run in no transaction.
    pub(super) fn sql(&self, database: &str, statements: &[&str]) -> Result<String> {
        let mut psql = self.exec();
        psql.args(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database]);
        for statement in statements {
            psql.args(["-c", statement]);
        }
        process::output(&mut psql)
    }

    /// Settings of its server that need a start of it, as in its configuration file.
    pub(super) fn configure(&self, settings: &[&str]) -> Result<()> {
        let set = settings
            .iter()
            .map(|setting| format!("ALTER SYSTEM SET {setting}"));
        let set: Vec<String> = set.collect();
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        self.sql("postgres", &set)?;
        process::output(self.ground.pgs().args(["restart", self.id])).map(drop)
    }

    /// A program in its container, as the server's own user.
    pub(super) fn exec(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.args(["exec", "--user", "postgres", &self.container]);
        docker
    }

    /// Lets these clients in without what pgs demands by default: what suites do with roles and
    /// passwords is their own affair, and the same without pgs.
    pub(super) fn access_rules(&self, rules: &str) -> Result<()> {
        let rules = format!("{rules}\n");
        let write = "printf %s \"$1\" > \"$(psql -XAtq -c 'SHOW hba_file')\"";
        process::output(self.exec().args(["sh", "-ec", write, "sh", &rules]))?;
        let broken = "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL";
        let answer = self.sql("postgres", &["SELECT pg_reload_conf()", broken])?;
        anyhow::ensure!(answer.ends_with('0'), "these rules do not parse: {rules}");
        Ok(())
    }
}

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        let mut remove = self.ground.pgs();
        if let Err(error) = process::output(remove.args(["remove", self.id, "--yes"])) {
            report::line(format_args!("  ✗ remove tenant {}: {error:#}", self.id));
        }
    }
}
