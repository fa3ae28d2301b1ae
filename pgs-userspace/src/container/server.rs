//! The PostgreSQL server in a tenant's container: its roles, its database, who may log in how.
//!
//! Everything is told to `psql` on its standard input, run by the server's own user inside the
//! container, which `peer` takes for the superuser. Passwords come here as verifiers only.

use std::io::Cursor;
use std::path::Path;

use tokio::fs::File;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;

use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::execute::Command;
use crate::tenant::id::TenantId;

/// Who may log in how. The superuser only from inside the container; everybody else with a
/// password, the router's connections too: it is root on the host, which is no role here.
const ACCESS_RULES: &str = "\
# Written by pgs. The server listens on its Unix socket alone, unless it ends TLS itself (below).
# TYPE  DATABASE     USER      METHOD
local   all          postgres  peer
local   replication  postgres  peer
local   all          all       scram-sha-256
local   replication  all       scram-sha-256
";

/// Where the server's configuration says its access rules are; replaced in one step.
const WRITE_ACCESS_RULES: &str = "set -e; umask 077; \
    file=$(psql -XAtq -h /var/run/postgresql -U postgres -d postgres -c 'SHOW hba_file'); \
    cat > \"$file.new\"; mv \"$file.new\" \"$file\"";

/// Fails where a rule does not parse, or where one would let somebody in without proof. The command
/// line says that there is no TCP; saying it in the configuration too keeps the server from
/// complaining of the difference at every reload.
const LOAD_ACCESS_RULES: &str = "\
DO $pgs$
BEGIN
  IF EXISTS (SELECT FROM pg_hba_file_rules WHERE error IS NOT NULL OR auth_method = 'trust')
     OR NOT EXISTS (SELECT FROM pg_hba_file_rules WHERE auth_method = 'scram-sha-256') THEN
    RAISE EXCEPTION 'pg_hba.conf has not the lines that pgs wrote';
  END IF;
END
$pgs$;
ALTER SYSTEM SET listen_addresses = '';
SELECT pg_reload_conf();
";

/// A statement that fails would else be logged with the verifier in it.
const LOG_NOTHING: &str = "\
SET client_min_messages = warning;
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
";

/// Counts what it ends. The superuser is whoever runs a command in the container.
const END_SESSIONS: [&str; 9] = [
    "psql",
    "-XAtq",
    "-h",
    "/var/run/postgresql",
    "-U",
    "postgres",
    // A server that stands still must not end later sessions when it goes on. libpq waits for two
    // seconds at least.
    "dbname=postgres connect_timeout=2",
    "-c",
    // Materialized: the planner is free to end a session before it looks whose it is.
    "WITH victim AS MATERIALIZED (\
       SELECT pid FROM pg_stat_activity \
       WHERE backend_type IN ('client backend', 'walsender') AND usename <> 'postgres') \
     SELECT count(pg_terminate_backend(pid)) FROM victim",
];

/// What the tenant's role may do beyond being master of its own databases and roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Privileges {
    /// It is a superuser.
    pub superuser: bool,
    /// It may make replication connections, such as `pg_basebackup`'s.
    pub replication: bool,
}

impl Engine {
    /// Makes a server that has just been initialised, or adopted, the tenant's: access rules, role,
    /// database; and takes the superuser's password away.
    ///
    /// # Errors
    /// A command in the container failed.
    pub async fn furnish(
        &self,
        tenant: &TenantId,
        privileges: Privileges,
        verifier: &str,
    ) -> Result<(), ContainerError> {
        let rules = Command::new("writing pg_hba.conf", &["sh", "-c", WRITE_ACCESS_RULES])
            .with_input(Cursor::new(ACCESS_RULES));
        self.execute(tenant, rules).await?;
        self.run_sql(
            tenant,
            "loading pg_hba.conf",
            "postgres",
            LOAD_ACCESS_RULES.to_owned(),
        )
        .await?;
        let statements = role_statements(tenant, privileges, verifier);
        self.run_sql(tenant, "making role and database", "postgres", statements)
            .await
    }

    /// Gives the tenant's role another password.
    ///
    /// # Errors
    /// The command in the container failed.
    pub async fn change_password(
        &self,
        tenant: &TenantId,
        verifier: &str,
    ) -> Result<(), ContainerError> {
        let statements = format!("{LOG_NOTHING}ALTER ROLE {tenant} PASSWORD '{verifier}';\n");
        self.run_sql(tenant, "changing the password", "postgres", statements)
            .await
    }

    /// Runs a file of SQL in the tenant's database, as the tenant's role; `RESET ROLE` in the file
    /// gives it the superuser's rights. Stops at the first error.
    ///
    /// # Errors
    /// The file cannot be read, or a statement failed.
    pub async fn run_file(&self, tenant: &TenantId, path: &Path) -> Result<(), ContainerError> {
        let file = File::open(path)
            .await
            .map_err(ContainerError::directory("read", path))?;
        let preamble = Cursor::new(format!("SET ROLE {tenant};\n"));
        let task = format!("running `{}`", path.display());
        let command = psql(task, tenant.as_str(), preamble.chain(file)).with_users_sql();
        self.execute(tenant, command).await.map(drop)
    }

    /// Ends the sessions of everybody but the superuser, each with SQLSTATE 57P01; how many.
    ///
    /// # Errors
    /// The command in the container failed.
    pub async fn end_sessions(&self, tenant: &TenantId) -> Result<usize, ContainerError> {
        let command = Command::new("ending the sessions", &END_SESSIONS);
        let printed = self.execute(tenant, command).await?;
        Ok(printed.trim().parse().unwrap_or(0))
    }

    pub(super) async fn run_sql(
        &self,
        tenant: &TenantId,
        task: &str,
        database: &str,
        statements: String,
    ) -> Result<(), ContainerError> {
        let command = psql(task, database, Cursor::new(statements));
        self.execute(tenant, command).await.map(drop)
    }
}

/// Stops at the first error.
fn psql(
    task: impl Into<String>,
    database: &str,
    input: impl AsyncRead + Send + 'static,
) -> Command {
    let arguments = [
        "psql",
        "-XAtq",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "/var/run/postgresql",
        "-U",
        "postgres",
        "-d",
        database,
        "-f",
        "-",
    ];
    Command::new(task, &arguments).with_input(input)
}

/// The same whether role and database are there already or not: an adopted volume has them.
fn role_statements(tenant: &TenantId, privileges: Privileges, verifier: &str) -> String {
    let superuser = if privileges.superuser {
        "SUPERUSER"
    } else {
        "NOSUPERUSER"
    };
    let replication = if privileges.replication {
        "REPLICATION"
    } else {
        "NOREPLICATION"
    };
    format!(
        "{LOG_NOTHING}\
         SELECT 'CREATE ROLE {tenant}'
           WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{tenant}') \\gexec\n\
         ALTER ROLE {tenant} LOGIN {superuser} {replication} CREATEDB CREATEROLE NOBYPASSRLS\n\
           PASSWORD '{verifier}';\n\
         SELECT 'CREATE DATABASE {tenant} OWNER {tenant}'\n\
           WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{tenant}') \\gexec\n\
         ALTER DATABASE {tenant} OWNER TO {tenant};\n\
         ALTER ROLE postgres PASSWORD NULL;\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_trusts_and_the_superuser_needs_to_be_inside() {
        let rules: Vec<Vec<&str>> = ACCESS_RULES
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rules.len(), 4);
        for rule in rules {
            assert_eq!(rule[0], "local");
            let expected = if rule[2] == "postgres" {
                "peer"
            } else {
                "scram-sha-256"
            };
            assert_eq!(rule[3], expected);
        }
    }

    #[test]
    fn privileges_are_said_either_way() {
        let acme = TenantId::parse("acme").unwrap();
        let plain = role_statements(&acme, Privileges::default(), "V");
        assert!(plain.contains("LOGIN NOSUPERUSER NOREPLICATION CREATEDB"));
        let all = Privileges {
            superuser: true,
            replication: true,
        };
        assert!(role_statements(&acme, all, "V").contains("LOGIN SUPERUSER REPLICATION"));
        assert!(plain.contains("ALTER ROLE postgres PASSWORD NULL"));
    }
}
