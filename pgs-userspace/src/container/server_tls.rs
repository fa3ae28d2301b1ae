//! A tenant's server that ends its clients' TLS itself: its certificate, where it listens, who may
//! log in that way.
//!
//! The certificate and its key lie in one file in the data directory, so that they are replaced in
//! one step, and go where the data goes.

use std::io::Cursor;

use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::execute::Command;
use crate::tenant::id::TenantId;

/// No TCP, not even inside the container: the router comes over the socket.
const COMMAND: [&str; 3] = ["postgres", "-c", "listen_addresses="];

/// TLS needs TCP. On loopback alone, so that in a container with a network it is not to be reached
/// from there. On the command line, because a certificate that the server cannot use keeps it from
/// starting, and a setting in its own files could then not be taken back. `authentication_timeout`
/// as the router reckons with it, [`SERVER_AUTHENTICATION_TIMEOUT`]: no file can change it there.
///
/// [`SERVER_AUTHENTICATION_TIMEOUT`]: crate::config::limits::SERVER_AUTHENTICATION_TIMEOUT
const COMMAND_WITH_TLS: [&str; 11] = [
    "postgres",
    "-c",
    "listen_addresses=127.0.0.1",
    "-c",
    "ssl=on",
    "-c",
    "ssl_cert_file=pgs-tls.pem",
    "-c",
    "ssl_key_file=pgs-tls.pem",
    "-c",
    "authentication_timeout=15s",
];

/// In every command, of this version or an earlier one, that lets a server end TLS.
const TLS_ON: &str = "ssl=on";

/// Before what works in the data directory, as the server's user.
const IN_THE_DATA_DIRECTORY: &str = "set -e; umask 077; \
    data=$(psql -XAtq -h /var/run/postgresql -U postgres -d postgres -c 'SHOW data_directory'); \
    cd \"$data\"; ";

/// `sync`: a file that is empty after a crash would keep the server from starting, and so would one
/// of a command that was killed before it had sent it. What an earlier command that was killed had
/// put aside stays the one to come back: nobody knows whether the server has taken what came since.
const WRITE_CERTIFICATE: &str = "cat > pgs-tls.pem.new; sync pgs-tls.pem.new; \
    [ -s pgs-tls.pem.new ]; \
    if [ -e pgs-tls.pem ] && [ ! -e pgs-tls.pem.old ]; \
    then cp -p pgs-tls.pem pgs-tls.pem.old; fi; \
    mv pgs-tls.pem.new pgs-tls.pem";

const RESTORE_CERTIFICATE: &str = "mv pgs-tls.pem.old pgs-tls.pem";

const FORGET_OLD_CERTIFICATE: &str = "rm -f pgs-tls.pem.old";

const FIND_CERTIFICATE: &str = "if [ -s pgs-tls.pem ]; then echo yes; else echo no; fi";

/// Takes the lines away and adds what comes on standard input; every other line stays as it is.
const WRITE_TLS_RULES: &str = "set -e; umask 077; \
    file=$(psql -XAtq -h /var/run/postgresql -U postgres -d postgres -c 'SHOW hba_file'); \
    sed '/^# pgs: begin of TLS/,/^# pgs: end of TLS/d' \"$file\" > \"$file.new\"; \
    cat >> \"$file.new\"; sync \"$file.new\"; mv \"$file.new\" \"$file\"";

/// The router comes from the container's own loopback. In the clear nobody gets in by TCP, and the
/// superuser not at all.
const TLS_RULES: &str = "\
# pgs: begin of TLS
host     all          postgres  all           reject
hostssl  all          all       127.0.0.1/32  scram-sha-256
hostssl  replication  all       127.0.0.1/32  scram-sha-256
# pgs: end of TLS
";

const RELOAD: &str = "SELECT pg_reload_conf();\n";

/// What ends the TLS of a tenant's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsEnd {
    /// The router, where there is any.
    Router,
    /// The tenant's server: its clients' TLS passes through the router.
    Server,
}

impl TlsEnd {
    /// How the server is started.
    pub(super) fn command(self) -> &'static [&'static str] {
        match self {
            Self::Router => &COMMAND,
            Self::Server => &COMMAND_WITH_TLS,
        }
    }

    /// From how a container was made, by whatever version.
    pub(super) fn of_command(command: &[String]) -> Self {
        match command.iter().any(|word| word == TLS_ON) {
            true => Self::Server,
            false => Self::Router,
        }
    }

    /// The lines of `pg_hba.conf` that go with it.
    fn rules(self) -> &'static str {
        match self {
            Self::Router => "",
            Self::Server => TLS_RULES,
        }
    }

    /// The same in the configuration as on the command line, or the server complains of the
    /// difference at every reload.
    fn listen_addresses(self) -> &'static str {
        match self {
            Self::Router => "",
            Self::Server => "127.0.0.1",
        }
    }
}

impl Engine {
    /// Puts a certificate with its chain and its key, PEM, in the place of the server's own one. It
    /// is not yet read. The one before is kept until [`Self::keep_certificate`].
    ///
    /// # Errors
    /// The command in the container failed.
    pub async fn write_certificate(
        &self,
        tenant: &TenantId,
        pem: Vec<u8>,
    ) -> Result<(), ContainerError> {
        let command = shell(
            "writing the certificate",
            &in_the_data_directory(WRITE_CERTIFICATE),
        );
        let command = command.with_input(Cursor::new(pem));
        self.execute(tenant, command).await.map(drop)
    }

    /// Gives the one before up.
    ///
    /// # Errors
    /// The command in the container failed.
    pub async fn keep_certificate(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        let command = shell(
            "removing the former certificate",
            &in_the_data_directory(FORGET_OLD_CERTIFICATE),
        );
        self.execute(tenant, command).await.map(drop)
    }

    /// Puts the one before back, and lets the server read it.
    ///
    /// # Errors
    /// There is none, or a command in the container failed.
    pub async fn restore_certificate(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        let command = shell(
            "restoring the former certificate",
            &in_the_data_directory(RESTORE_CERTIFICATE),
        );
        self.execute(tenant, command).await?;
        self.reload(tenant).await
    }

    /// Whether the server has a certificate of its own.
    ///
    /// # Errors
    /// The command in the container failed.
    pub async fn has_certificate(&self, tenant: &TenantId) -> Result<bool, ContainerError> {
        let command = shell(
            "looking for the certificate",
            &in_the_data_directory(FIND_CERTIFICATE),
        );
        let printed = self.execute(tenant, command).await?;
        Ok(printed.trim() == "yes")
    }

    /// Lets the server read its certificate and its access rules again. New sessions see them.
    ///
    /// # Errors
    /// The command in the container failed.
    pub async fn reload(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        self.run_sql(tenant, "reloading", "postgres", RELOAD.to_owned())
            .await
    }

    /// Makes the server's own configuration agree with how it was started.
    ///
    /// # Errors
    /// A command in the container failed.
    pub async fn agree_on_tls(&self, tenant: &TenantId, tls: TlsEnd) -> Result<(), ContainerError> {
        let command = shell("writing pg_hba.conf", WRITE_TLS_RULES);
        let command = command.with_input(Cursor::new(tls.rules()));
        self.execute(tenant, command).await?;
        let addresses = tls.listen_addresses();
        let statements = format!("ALTER SYSTEM SET listen_addresses = '{addresses}';\n{RELOAD}");
        self.run_sql(tenant, "loading pg_hba.conf", "postgres", statements)
            .await
    }
}

fn in_the_data_directory(script: &str) -> String {
    format!("{IN_THE_DATA_DIRECTORY}{script}")
}

fn shell(task: &str, script: &str) -> Command {
    Command::new(task, &["sh", "-c", script])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;
    use std::process::Command;
    use std::process::Stdio;

    use super::*;
    use crate::config::limits::SERVER_AUTHENTICATION_TIMEOUT;

    #[test]
    fn what_ends_the_tls_can_be_read_from_the_command() {
        for tls in [TlsEnd::Router, TlsEnd::Server] {
            let command: Vec<_> = tls.command().iter().map(|&word| word.to_owned()).collect();
            assert_eq!(TlsEnd::of_command(&command), tls);
        }
        assert_eq!(TlsEnd::of_command(&[]), TlsEnd::Router);
        // As an earlier version made it.
        let earlier = COMMAND_WITH_TLS[..9].iter().map(|&word| word.to_owned());
        assert_eq!(
            TlsEnd::of_command(&earlier.collect::<Vec<_>>()),
            TlsEnd::Server
        );
    }

    /// Without the container: what its shell does in a directory.
    fn carried_out(script: &str, directory: &Path, input: &[u8]) -> bool {
        let mut shell = Command::new("sh")
            .args(["-c", &format!("set -e; {script}")])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(input).unwrap();
        shell.wait().unwrap().success()
    }

    #[test]
    fn the_certificate_that_was_proved_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let there = || std::fs::read(directory.path().join("pgs-tls.pem")).unwrap();
        let does = |script, input| carried_out(script, directory.path(), input);
        assert!(does(WRITE_CERTIFICATE, b"good") && does(FORGET_OLD_CERTIFICATE, b""));
        // A command that was killed before the server had taken what it had written.
        assert!(does(WRITE_CERTIFICATE, b"not proved"));
        assert!(does(WRITE_CERTIFICATE, b"not proved either"));
        assert!(does(RESTORE_CERTIFICATE, b""));
        assert_eq!(there(), b"good");
        // And one before it had sent anything.
        assert!(!does(WRITE_CERTIFICATE, b""));
        assert_eq!(there(), b"good");
    }

    #[test]
    fn the_server_gives_a_login_as_long_as_the_router_reckons_with() {
        let seconds = SERVER_AUTHENTICATION_TIMEOUT.as_secs();
        let setting = format!("authentication_timeout={seconds}s");
        assert!(TlsEnd::Server.command().contains(&setting.as_str()));
    }

    #[test]
    fn by_tcp_nobody_gets_in_without_tls_and_a_password() {
        let rules: Vec<Vec<&str>> = TLS_RULES
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rules[0], ["host", "all", "postgres", "all", "reject"]);
        for rule in &rules[1..] {
            assert_eq!((rule[0], rule[3]), ("hostssl", "127.0.0.1/32"));
            assert_eq!(rule[4], "scram-sha-256");
        }
    }
}
