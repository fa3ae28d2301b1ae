//! The command line: clap types only, no behaviour.

use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;

use crate::config::file::SYSTEM_STATE;

pub mod argument_memory;
pub mod configuration;
pub mod quantity;
pub mod serve;
pub mod tenant;
pub mod tls;
pub mod usage;

const EXAMPLES: &str = "\
Examples:
  pgs serve                        put every tenant behind port 5432
  pgs create acme --enable         make a tenant and let its clients in
  psql -h localhost -U acme acme   connect to it, like to any PostgreSQL server
  pgs list                         see who is there
  pgs disable acme                 shut its clients out, at once

Exit codes:
  0 done   1 internal   2 usage, or a file that cannot be used   3 no such tenant
  4 exists already   5 not a valid tenant id   6 busy   7 no Docker   8 image missing
  9 no space   10 port in use   11 unhealthy   12 `pgs serve` is not running
  13 not permitted   14 registry unusable   15 not confirmed   16 `doctor` found a fault
  17 an `--init` file failed   18 configuration unusable   130 interrupted";

/// PostgreSQL tenants, one container each, all behind one port
///
/// Each tenant is a PostgreSQL server of its own: one container, one volume with its data, one Unix
/// socket. `pgs serve` listens on port 5432, reads which tenant a client wants from the user or
/// database name it gives, and hands the session's traffic to the kernel.
#[derive(Debug, Parser)]
#[command(name = "pgs", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Where everything of this installation lies.
    #[command(flatten)]
    pub directories: DirectoryArguments,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Where everything of one installation lies.
#[derive(Debug, Args)]
pub struct DirectoryArguments {
    /// Directory for the registry and the tenants' sockets; survives a reboot
    #[arg(long, global = true, value_name = "DIR", env = "PGS_STATE_DIR")]
    #[arg(default_value = SYSTEM_STATE, help_heading = "Directories")]
    pub state_dir: PathBuf,
    /// Directory for the socket on which `pgs serve` answers the other commands
    #[arg(long, global = true, value_name = "DIR", env = "PGS_RUN_DIR")]
    #[arg(default_value = "/run/pgs", help_heading = "Directories")]
    pub run_dir: PathBuf,
    /// Configuration file [default: /etc/pgs/pgs.toml, or with `--state-dir` DIR/pgs.toml, if there
    /// is one]
    #[arg(long, global = true, value_name = "FILE", env = "PGS_CONFIG")]
    #[arg(help_heading = "Directories")]
    pub config: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Listen on port 5432 and bring every client to its tenant
    Serve(serve::ServeArguments),
    /// Hold descriptors for `pgs serve`, which starts this by itself
    #[command(hide = true)]
    Keeper(serve::KeeperArguments),
    /// Make a tenant: a container, a volume, a role and a database
    Create(tenant::CreateArguments),
    /// List the tenants and how they are
    List(FormatArguments),
    /// Show one tenant, or all, and the router in detail
    Status(tenant::StatusArguments),
    /// Start tenants; all of them when none is named
    Start(tenant::SeveralArguments),
    /// Stop tenants; all of them when none is named
    Stop(tenant::SeveralArguments),
    /// Stop tenants and start them again; all of them when none is named
    Restart(tenant::SeveralArguments),
    /// Remove a tenant with its data
    Remove(tenant::RemoveArguments),
    /// Let a tenant's clients in
    #[command(alias = "enable-access")]
    Enable(tenant::OneArgument),
    /// Shut a tenant's clients out and end their sessions
    #[command(alias = "disable-access")]
    Disable(tenant::DisableArguments),
    /// Decide for one tenant from where, how often and how its clients may connect
    Set(configuration::SetArguments),
    /// Show what holds for a tenant, and where it was decided
    Show(configuration::ShowArguments),
    /// Check the configuration file, show what holds
    Config(configuration::ConfigArguments),
    /// Give a tenant's role a new password
    Password(tenant::PasswordCommandArguments),
    /// Print a tenant's connection URL, without its password
    Url(tenant::UrlArguments),
    /// Run `psql` in a tenant's container, without a password
    Psql(tenant::PsqlArguments),
    /// Print what a tenant's server has logged
    Logs(tenant::LogsArguments),
    /// List the live sessions of the router
    Sessions(tenant::SessionsArguments),
    /// Print what the router has counted, in the text format of Prometheus
    Metrics,
    /// Install, show and make certificates
    Tls(tls::TlsArguments),
    /// Check whether this machine has what pgs needs
    Doctor(FormatArguments),
    /// Print the version and which eBPF object is inside
    Version(FormatArguments),
    /// Print a completion script for a shell
    Completions(CompletionsArguments),
}

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
pub struct FormatArguments {
    /// Print JSON, errors too
    #[arg(long)]
    pub json: bool,
}

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell that shall complete
    pub shell: clap_complete::Shell,
}

impl Verb {
    /// Whether output and errors shall be JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::List(format) | Self::Doctor(format) | Self::Version(format) => format.json,
            Self::Create(arguments) => arguments.format.json,
            Self::Status(arguments) => arguments.format.json,
            Self::Start(arguments) | Self::Stop(arguments) | Self::Restart(arguments) => {
                arguments.format.json
            }
            Self::Remove(arguments) => arguments.format.json,
            Self::Enable(arguments) => arguments.format.json,
            Self::Disable(arguments) => arguments.format.json,
            Self::Set(arguments) => arguments.format.json,
            Self::Show(arguments) => arguments.format.json,
            Self::Config(arguments) => arguments.json(),
            Self::Password(arguments) => arguments.format.json,
            Self::Url(arguments) => arguments.format.json,
            Self::Sessions(arguments) => arguments.format.json,
            Self::Tls(arguments) => arguments.json(),
            // What these print is no answer, or has a form of its own.
            Self::Serve(_)
            | Self::Keeper(_)
            | Self::Psql(_)
            | Self::Logs(_)
            | Self::Metrics
            | Self::Completions(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::error::EXIT_CODES;

    #[test]
    fn clap_finds_no_contradiction() {
        Cli::command().debug_assert();
    }

    /// Verbs whose output is no answer, or has a form of its own.
    const WITHOUT_JSON: [&str; 6] = ["serve", "keeper", "psql", "logs", "metrics", "completions"];

    #[test]
    fn every_other_verb_prints_json_when_asked_to() {
        let mut lines: Vec<Vec<&str>> = Vec::new();
        for line in [
            "list",
            "status",
            "create acme",
            "start acme",
            "stop",
            "restart --tenant acme",
            "remove acme",
            "enable acme",
            "disable acme",
            "set acme path=relay",
            "show acme",
            "config check",
            "config show",
            "config reload",
            "password acme",
            "url acme",
            "sessions",
            "tls set --default --certificate c --key k",
            "tls show",
            "tls self-signed",
            "doctor",
            "version",
        ] {
            lines.push(line.split(' ').collect());
        }
        let command = Cli::command();
        for verb in command.get_subcommands().map(clap::Command::get_name) {
            let tried = lines.iter().any(|line| line[0] == verb);
            assert!(tried != WITHOUT_JSON.contains(&verb), "{verb}");
        }
        for line in lines {
            let parse = |more: &[&'static str]| {
                let arguments = ["pgs"].iter().chain(&line).chain(more).copied();
                Cli::try_parse_from(arguments).map(|cli| cli.verb.json())
            };
            assert!(matches!(parse(&[]), Ok(false)), "{line:?}");
            assert!(matches!(parse(&["--json"]), Ok(true)), "{line:?}");
        }
    }

    #[test]
    fn help_names_every_exit_code() {
        for (kind, code, _) in EXIT_CODES {
            let words = EXAMPLES.split_whitespace();
            assert!(
                words.into_iter().any(|word| word == code.to_string()),
                "{kind:?}"
            );
        }
    }
}
