//! Arguments of the verbs on the configuration and on tenants' settings.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;

use super::FormatArguments;

const SET_EXAMPLES: &str = "\
Examples:
  pgs set acme allow=192.0.2.0/24,2001:db8::/32    let clients connect from there only
  pgs set acme connections_max=50 connection_rate_per_minute=600
  pgs set acme tls=required idle_session_timeout=1h
  pgs set acme --unset allow                       as for every tenant again

Settings:
  allow                        networks that clients may connect from; from everywhere if empty
  connections_max              sessions at once
  connection_rate_per_minute   logins begun a minute, in the long run; or `off`
  connection_burst             logins begun at once before that rate counts
  tls                          `optional`, `required`, `passthrough`
  client_certificates          `off`, `optional`, `required`, `verify-user`
  client_ca                    file of the authorities that sign the clients' certificates
  client_address               whether SQL can read the client's address: `on` or `off`
  path                         `auto`; or `relay`, better for bulk, but such sessions end with the
                               router
  idle_session_timeout         ends a session that moves no byte for so long; or `off`
  login_deadline               from the connection to the end of authentication, but for what a
                               login waits for its turn

What is set counts from the next connection on; sessions that live go on. What is not set is as
`[tenant_defaults]` of the configuration file says. `pgs show <tenant>` shows what holds.";

const CONFIG_EXAMPLES: &str = "\
Examples:
  pgs config check                 before `pgs serve` is restarted
  pgs config check new.toml
  pgs config show                  every key, its value, and where it was decided
  pgs config reload                have `pgs serve` read it again, as SIGHUP does

The file is /etc/pgs/pgs.toml, or with `--state-dir DIR` the DIR/pgs.toml, unless `--config` names
another. It need not exist. `pgs serve` reads it when it starts and at `reload`; what is said on its
command line counts before it.";

/// Arguments of `set`.
#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
pub struct SetArguments {
    /// The tenant's id
    pub tenant: String,
    /// What is to hold for it
    #[arg(value_name = "NAME=VALUE", required_unless_present = "unset")]
    pub settings: Vec<String>,
    /// Go back to what holds for every tenant; may be given several times
    #[arg(long, value_name = "NAME")]
    pub unset: Vec<String>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// The tenant's id
    pub tenant: String,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = CONFIG_EXAMPLES)]
pub struct ConfigArguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

/// The verbs of `pgs config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Say whether a configuration file can be used, and what is wrong with it
    Check(CheckArguments),
    /// Show what holds, and where it was decided
    Show(FormatArguments),
    /// Have `pgs serve` read the file again; sessions go on
    Reload(FormatArguments),
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The file [default: the one that `pgs serve` would read]
    pub file: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

impl ConfigArguments {
    /// Whether output and errors shall be JSON.
    pub(super) fn json(&self) -> bool {
        match &self.verb {
            ConfigVerb::Check(arguments) => arguments.format.json,
            ConfigVerb::Show(format) | ConfigVerb::Reload(format) => format.json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section::Section as _;
    use crate::tenant::settings::TenantSettings;

    #[test]
    fn help_names_every_setting() {
        for key in TenantSettings::KEYS {
            let line = format!("\n  {} ", key.name);
            assert!(SET_EXAMPLES.contains(&line), "{}", key.name);
        }
    }
}
