//! How libpq's settings for the first packets play out: with pgs as with PostgreSQL itself.
//!
//! A tenant's server has neither TLS nor a port, so what pgs is compared with is a server that has
//! both, with the same certificate and the same demands.

mod certificates;
mod deliberate;
mod mode;

use super::certificates::ensure_openssl;
use super::compare::Due;
use super::endpoint::{Endpoint, Reference, Subject};
use super::ground::Ground;
use super::outcome::Tests;
use super::suite::{Facts, Suite};
use super::tenant::{PASSWORD, Tenant};
use super::{fetch, program, sqlalchemy};
use crate::report::Step;
use crate::{container, process, workspace};
use anyhow::{Context, Result};
use mode::{Clients, Mode, Tls};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const TENANT: &str = "negotiation";
const LIMIT: Duration = Duration::from_secs(900);
/// uid and gid of `postgres` in the image: the server insists that the key is its own.
const SERVER_USER: &str = "999:999";
/// Where the reference has certificate and access rules.
const PLACE: &str = "/etc/reference";
/// In the data directory of a tenant's server.
const CLIENT_AUTHORITY: &str = "client-authority.pem";
/// Adds a demand to the rules for TLS that pgs has written, and an authority to the data directory.
const DEMAND: &str = "set -e; cd \"$(psql -XAtq -c 'SHOW data_directory')\"; \
    printf %s \"$1\" > client-authority.pem; \
    file=$(psql -XAtq -c 'SHOW hba_file'); \
    sed \"s/^hostssl .*scram-sha-256$/&$2/\" \"$file\" > \"$file.new\"; mv \"$file.new\" \"$file\"";

/// An interpreter with psycopg, and certificates.
pub(super) struct Negotiation {
    python: PathBuf,
    certificates: PathBuf,
}

impl Negotiation {
    pub(super) fn prepare(ground: &Ground) -> Result<Self> {
        let step = Step::new("psycopg and certificates");
        let python = sqlalchemy::environment_with_driver(&step, &fetch::scratch("sqlalchemy")?)?;
        ensure_openssl(&step)?;
        let certificates = ground.directory().join("certificates");
        certificates::make(&certificates)?;
        step.done("there");
        Ok(Self {
            python,
            certificates,
        })
    }

    fn file(&self, name: &str) -> String {
        self.certificates.join(name).display().to_string()
    }

    /// `pgs tls set` with the server's certificate.
    fn install(&self, ground: &Ground, whose: &[&str]) -> Result<()> {
        let mut set = ground.pgs();
        set.args(["tls", "set"]).args(whose);
        set.args(["--certificate", &self.file("server.crt")]);
        set.args(["--key", &self.file("server.key")]);
        process::output(&mut set).map(drop)
    }

    /// Lets the tenant's server, which ends the TLS itself, demand what the mode demands.
    fn demand(&self, tenant: &Tenant<'_>, mode: &Mode) -> Result<()> {
        if mode.clients == Clients::NotAsked {
            return Ok(());
        }
        let authority = fs::read_to_string(self.file("ca.crt"))?;
        let arguments = ["sh", "-ec", DEMAND, "sh", &authority, mode.demand()];
        process::output(tenant.exec().args(arguments))?;
        let file = format!("ALTER SYSTEM SET ssl_ca_file = '{CLIENT_AUTHORITY}'");
        let rules = "SELECT count(*) FROM pg_hba_file_rules WHERE 'clientcert=verify-full' = ANY \
                     (options) AND error IS NULL";
        let found = tenant.sql("postgres", &[&file, "SELECT pg_reload_conf()", rules])?;
        // One for sessions, one for replication.
        anyhow::ensure!(found.ends_with('2'), "no certificate is demanded: {found}");
        Ok(())
    }
}

fn known(mode: &str) -> Result<&'static Mode> {
    Mode::named(mode).with_context(|| format!("no such mode: {mode}"))
}

impl Suite for Negotiation {
    fn facts(&self) -> Result<Facts> {
        let driver = sqlalchemy::driver_version(&self.python)?;
        let psql = process::output(Command::new("psql").arg("--version"))?;
        Ok(Facts {
            client: format!("{driver}; {psql}"),
            tests: format!(
                "conformance/negotiation/matrix.py: sslmode × gssencmode × sslnegotiation × \
                 client certificate (none, right, another user's, wrong), and protocol versions, \
                 channel binding and no server name, each with two kinds of cancel request, on a \
                 server {}",
                mode::NAMES.join("; ")
            ),
            notes: vec![
                "A test is a combination and what came of it: let in or not and why, encrypted or \
                 not, cancelled or not. *Without pgs* is a PostgreSQL server of its own with the \
                 same certificates and the same demands."
                    .to_owned(),
                "Where TLS passes through there is no way in without it, and none is expected: \
                 the PostgreSQL that it is compared with has `hostssl` alone."
                    .to_owned(),
                "libpq is given a Kerberos credential, without which it never asks for GSSAPI \
                 encryption; no server takes it, so that what comes after the question is compared."
                    .to_owned(),
            ],
        })
    }

    fn tenant(&self) -> &'static str {
        TENANT
    }

    fn modes(&self) -> &'static [&'static str] {
        &mode::NAMES
    }

    fn serve_arguments(
        &self,
        ground: &Ground,
        mode: &str,
        tenant: &Tenant<'_>,
    ) -> Result<Vec<String>> {
        let mode = known(mode)?;
        if mode.tls != Tls::Off {
            self.install(ground, &["--default"])?;
        }
        if mode.tls == Tls::PassedThrough {
            self.install(ground, &["--tenant", TENANT])?;
        }
        let settings = mode.tenant_settings(&self.file("ca.crt"));
        process::output(ground.pgs().args(["set", TENANT]).args(settings))?;
        if mode.tls == Tls::PassedThrough {
            process::output(ground.pgs().args(["restart", TENANT]))?;
            self.demand(tenant, mode)?;
        }
        Ok(mode.serve_arguments())
    }

    fn instead(&self, _subject: Subject, test: &str) -> Option<Due> {
        deliberate::instead(test).map(|(through_pgs, reason)| Due::pass(through_pgs, reason))
    }

    fn reference(&self, ground: &Ground, mode: &str) -> Result<Option<Reference>> {
        let mode = known(mode)?;
        fs::write(self.certificates.join("pg_hba.conf"), mode.access_rules())?;
        let place = self.certificates.display().to_string();
        process::output(Command::new("chown").args(["-R", SERVER_USER, &place]))?;
        let name = ground.container("reference");
        let mut create = Command::new("docker");
        create
            .args(["create", "--name", &name])
            .args(["--publish", &format!("127.0.0.1:{}:5432", ground.port)])
            .args(["--env", &format!("POSTGRES_PASSWORD={PASSWORD}")])
            .args(["--env", &format!("POSTGRES_USER={TENANT}")])
            .args([ground.image(), "postgres"])
            .args(["-c", &format!("hba_file={PLACE}/pg_hba.conf")]);
        if mode.tls != Tls::Off {
            create
                .args(["-c", "ssl=on"])
                .args(["-c", &format!("ssl_cert_file={PLACE}/server.crt")])
                .args(["-c", &format!("ssl_key_file={PLACE}/server.key")]);
        }
        if mode.clients != Clients::NotAsked {
            create.args(["-c", &format!("ssl_ca_file={PLACE}/ca.crt")]);
        }
        process::output(&mut create)?;
        let reference = Reference { container: name };
        let docker = |arguments: &[&str]| process::output(Command::new("docker").args(arguments));
        let to = format!("{}:{PLACE}", reference.container);
        docker(&["cp", "--archive", &place, &to])?;
        docker(&["start", &reference.container])?;
        container::wait_ready(&reference.container)?;
        Ok(Some(reference))
    }

    fn run(
        &self,
        step: &Step,
        endpoint: &Endpoint<'_>,
        _tenant: &Tenant<'_>,
        log: &Path,
    ) -> Result<Tests> {
        let log = log.with_extension(format!("{}.txt", endpoint.mode.replace(' ', "-")));
        let mut python = Command::new(&self.python);
        python
            .arg(workspace::root().join("conformance/negotiation/matrix.py"))
            .args([&endpoint.port().to_string(), TENANT, PASSWORD])
            .arg(&self.certificates)
            .args([&known(endpoint.mode)?.host(TENANT), endpoint.mode]);
        let text = program::logged(&log, || {
            let status = program::run(step, &python, &log, LIMIT)?;
            anyhow::ensure!(status.success(), "the matrix broke off");
            Ok(())
        })?;
        Ok(program::plain_results(&text))
    }
}
