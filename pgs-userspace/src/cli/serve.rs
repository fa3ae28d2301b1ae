//! Arguments of `pgs serve`.

use clap::Args;
use clap::ValueEnum;

use crate::config::limits::KEEPER_RETURN_WAIT_DEFAULT;
use crate::config::listen::ListenOn;
use crate::config::network::Networks;
use crate::config::value::Value as _;
use crate::config::value::domain;
use crate::privileges::ServiceUser;

const EXAMPLES: &str = "\
Examples:
  pgs serve
  pgs serve --listen 127.0.0.1:5432 --listen [::1]:5432
  pgs serve --listen 0.0.0.0:5432 --listen 0.0.0.0:6001=acme
  pgs serve --path relay --log-format json
  pgs serve --user pgs
  pgs serve --tls-required --tls-domain db.example.com
  pgs serve --take-over            # with a new binary, while the old one serves

What is said here counts before the configuration file (`pgs config --help`), which has more.";

/// Arguments of `pgs serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArguments {
    /// Address and port to listen on; clients there that name no tenant come to TENANT; may be
    /// given several times [default: 0.0.0.0:5432]
    #[arg(long, value_name = "ADDRESS:PORT[=TENANT]")]
    pub listen: Vec<ListenOn>,
    /// How sessions' bytes travel [default: auto]
    #[arg(long, value_enum, env = "PGS_PATH")]
    pub path: Option<PathChoice>,
    /// How log lines look [default: text]
    #[arg(long, value_enum, env = "PGS_LOG_FORMAT")]
    pub log_format: Option<LogFormatChoice>,
    /// On SIGTERM, wait so many seconds for sessions to end by themselves [default: 30]
    #[arg(long, value_name = "N")]
    pub drain_seconds: Option<u64>,
    /// Refuse sessions that are not encrypted; needs a certificate (`pgs tls --help`)
    #[arg(long)]
    pub tls_required: bool,
    /// Let `<tenant>.<DOMAIN>`, as TLS clients name the host, name the tenant; may be given
    /// several times
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    pub tls_domain: Vec<String>,
    /// Take over from the `pgs serve` that is running with the same run directory; new connections
    /// wait meanwhile
    #[arg(long)]
    pub take_over: bool,
    /// What keeps the listening sockets open, and sessions alive, when this process is killed
    #[arg(long, value_enum, default_value_t = KeeperChoice::Auto, env = "PGS_KEEPER")]
    pub keeper: KeeperChoice,
    /// Run as this user once started as root, with no more rights than are needed
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<ServiceUser>,
    /// Take for true where such a proxy says that a client connects from (PROXY protocol), and
    /// demand that it says so; may be given several times
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub proxy_protocol_from: Vec<String>,
    /// Take at most so many sessions at once [default: 9000]
    #[arg(long, value_name = "N", value_parser = sessions_max)]
    pub sessions_max: Option<usize>,
}

/// How sessions' bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PathChoice {
    /// Through the kernel where it proves able to, else by the relay
    Auto,
    /// Through the kernel, or not at all
    Kernel,
    /// Through this process
    Relay,
}

/// What keeps descriptors when the router is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeeperChoice {
    /// systemd's file-descriptor store where the unit has one, else a process of its own
    Auto,
    /// Nothing
    Off,
}

/// Arguments of `pgs keeper`, which `pgs serve` starts.
#[derive(Debug, Args)]
pub struct KeeperArguments {
    /// How long to wait for a router to come back
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = KEEPER_RETURN_WAIT_DEFAULT.as_millis() as u64)]
    pub return_wait_milliseconds: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatChoice {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

fn network(text: &str) -> Result<String, String> {
    Networks::parse(text).map(|networks| networks.text())
}

fn sessions_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a router without sessions serves nobody".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}
