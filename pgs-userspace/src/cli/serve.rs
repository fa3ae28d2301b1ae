//! Arguments of `pgs serve`.

use std::net::SocketAddr;

use clap::Args;
use clap::ValueEnum;

use crate::config::limits::DRAIN_DEADLINE_DEFAULT;
use crate::config::limits::SESSIONS_MAX_DEFAULT;
use crate::privileges::ServiceUser;
use crate::tls::name::CertificateName;

const EXAMPLES: &str = "\
Examples:
  pgs serve
  pgs serve --listen 127.0.0.1:5432 --listen [::1]:5432
  pgs serve --path relay --log-format json
  pgs serve --user pgs
  pgs serve --tls-required --tls-domain db.example.com";

/// Arguments of `pgs serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArguments {
    /// Address and port to listen on; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:5432")]
    pub listen: Vec<SocketAddr>,
    /// How sessions' bytes travel
    #[arg(long, value_enum, default_value_t = PathChoice::Auto, env = "PGS_PATH")]
    pub path: PathChoice,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "PGS_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// On SIGTERM, wait so long for sessions to end by themselves
    #[arg(long, value_name = "N", default_value_t = DRAIN_DEADLINE_DEFAULT.as_secs())]
    pub drain_seconds: u64,
    /// Refuse sessions that are not encrypted; needs a certificate (`pgs tls --help`)
    #[arg(long)]
    pub tls_required: bool,
    /// Let `<tenant>.<DOMAIN>`, as TLS clients name the host, name the tenant; may be given
    /// several times
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    pub tls_domain: Vec<String>,
    /// Run as this user once started as root, with no more rights than are needed
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<ServiceUser>,
    /// Take at most so many sessions at once
    #[arg(long, value_name = "N", default_value_t = SESSIONS_MAX_DEFAULT)]
    #[arg(value_parser = sessions_max)]
    pub sessions_max: usize,
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

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

fn sessions_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a router without sessions serves nobody".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// A host name, in lower case.
fn domain(text: &str) -> Result<String, String> {
    match CertificateName::host(text) {
        Ok(CertificateName::Host(host)) if !host.starts_with("*.") => Ok(host),
        _ => Err("not a host name such as `db.example.com`".to_owned()),
    }
}
