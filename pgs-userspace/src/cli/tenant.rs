//! Arguments of the verbs on tenants.

use std::path::PathBuf;

use clap::Args;

use crate::cli::FormatArguments;
use crate::cli::quantity;
use crate::config::limits::CONTAINER_MEMORY_BYTES_DEFAULT;

/// What containers are made from, unless told otherwise.
pub const IMAGE_DEFAULT: &str = "postgres:18";

const CREATE_EXAMPLES: &str = "\
Examples:
  pgs create acme --enable
  pgs create acme --password-file - < secret.txt
  pgs create acme --init schema.sql --init data.sql --memory 2g --cpus 1.5
  pgs create acme --adopt-data            after `pgs remove acme --keep-data`

A tenant starts with access off: `pgs enable acme`, or `--enable`, lets its clients in.
Its role owns its database and may make more roles and databases, on its own server.";

const PSQL_EXAMPLES: &str = "\
Examples:
  pgs psql acme
  pgs psql acme -- -c 'SELECT count(*) FROM orders'
  pgs psql acme --superuser -- -c 'CREATE EXTENSION pg_stat_statements'
  pgs psql acme < schema.sql

It runs inside the container, as the tenant's role and without a password, whether `pgs serve` runs
and access is enabled or not. Files that psql is to read by name must be in the container.
The exit code is psql's own, once it has begun; 130 where a signal ends `pgs`.";

/// One tenant.
#[derive(Debug, Args)]
pub struct OneArgument {
    /// The tenant's id
    pub tenant: String,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub struct CreateArguments {
    /// Id of the new tenant: a lower-case letter, then lower-case letters, digits and `_`
    pub tenant: String,
    /// Its password; without one, a random password is made.
    #[command(flatten)]
    pub password: PasswordArguments,
    /// Image to make the container from
    #[arg(long, env = "PGS_IMAGE", default_value = IMAGE_DEFAULT)]
    pub image: String,
    /// Memory of the container, such as `512m` or `2g`
    #[arg(long, value_parser = quantity::memory, value_name = "AMOUNT")]
    #[arg(default_value_t = CONTAINER_MEMORY_BYTES_DEFAULT, hide_default_value = true)]
    pub memory: u64,
    /// Processors of the container, such as `2` or `0.5` [default: 2, or as many as there are]
    #[arg(long, value_parser = quantity::cpu_millis, value_name = "NUMBER")]
    pub cpus: Option<u32>,
    /// Docker network for what the server itself calls; without it the container has none. Clients
    /// come through `pgs serve` either way
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// SQL file to run in the new database as the tenant's role; may be given several times.
    /// `RESET ROLE` in the file gives it the superuser's rights
    #[arg(long, value_name = "FILE")]
    pub init: Vec<PathBuf>,
    /// Make the tenant's role a superuser of its own server
    #[arg(long)]
    pub superuser: bool,
    /// Let the tenant's role make replication connections, such as `pg_basebackup`'s
    #[arg(long)]
    pub replication: bool,
    /// Let clients in at once
    #[arg(long)]
    pub enable: bool,
    /// Take the data that `remove --keep-data` has left; the role gets the new password
    #[arg(long, conflicts_with = "init")]
    pub adopt_data: bool,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Where a password comes from.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct PasswordArguments {
    /// The password itself. Other users can read a command line while its process starts, and your
    /// shell keeps it: `--password-file` is better
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    pub password: Option<String>,
    /// File whose one line is the password; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// The tenant's id; all tenants without it
    pub tenant: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `start`, `stop` and `restart`.
#[derive(Debug, Args)]
pub struct SeveralArguments {
    /// The tenants' ids; all tenants without one
    #[arg(value_name = "TENANT")]
    pub tenants: Vec<String>,
    /// The same, as an option
    #[arg(long = "tenant", value_name = "TENANT")]
    pub more: Vec<String>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `remove`.
#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// The tenant's id
    pub tenant: String,
    /// Leave the volume with its data; `create --adopt-data` takes it again
    #[arg(long)]
    pub keep_data: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `disable`.
#[derive(Debug, Args)]
pub struct DisableArguments {
    /// The tenant's id
    pub tenant: String,
    /// Let sessions that are connected go on
    #[arg(long)]
    pub keep_sessions: bool,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `password`.
#[derive(Debug, Args)]
pub struct PasswordCommandArguments {
    /// The tenant's id
    pub tenant: String,
    /// The new password; without one, a random password is made.
    #[command(flatten)]
    pub password: PasswordArguments,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `url`.
#[derive(Debug, Args)]
pub struct UrlArguments {
    /// The tenant's id
    pub tenant: String,
    /// Host name by which clients reach this machine
    #[arg(long, default_value = "localhost")]
    pub host: String,
    /// Port of the router [default: the running router's, else 5432]
    #[arg(long)]
    pub port: Option<u16>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `psql`.
#[derive(Debug, Args)]
#[command(after_help = PSQL_EXAMPLES)]
pub struct PsqlArguments {
    /// The tenant's id
    pub tenant: String,
    /// Act as the server's superuser, not as the tenant's role
    #[arg(long)]
    pub superuser: bool,
    /// Arguments for psql, after `--`
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArguments {
    /// The tenant's id
    pub tenant: String,
    /// Go on printing as the server logs
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with so many of the last lines [default: all]
    #[arg(long, short = 'n', value_name = "N")]
    pub tail: Option<u32>,
}

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub struct SessionsArguments {
    /// The tenant's id; the sessions of all tenants without it
    pub tenant: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}
