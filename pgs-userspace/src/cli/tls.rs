//! Arguments of `pgs tls`.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;

use super::FormatArguments;

const EXAMPLES: &str = "\
Examples:
  pgs tls self-signed --name localhost          something to develop with
  pgs tls set --default --certificate fullchain.pem --key privkey.pem
  pgs tls set db.example.com --certificate db.crt --key db.key
  pgs tls set --tenant acme --certificate acme.crt --key acme.key
  pgs tls show
  ln -s /etc/letsencrypt/live /var/lib/pgs/tls/live     what certbot renews, as it is

A running `pgs serve` notices changed files within a second. While a new certificate cannot be
used, the last good one stays.

With `--tenant` the certificate goes into the tenant's volume. From then on
`pgs set acme tls=passthrough`, and once `pgs restart acme`, let the tenant's server end the TLS of
its clients itself; they connect to `acme.<domain>` (`pgs serve --tls-domain`).";

/// Arguments of `pgs tls`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TlsArguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: TlsVerb,
}

impl TlsArguments {
    /// Whether output and errors shall be JSON.
    pub(super) fn json(&self) -> bool {
        match &self.verb {
            TlsVerb::Set(arguments) => arguments.format.json,
            TlsVerb::Show(format) => format.json,
            TlsVerb::SelfSigned(arguments) => arguments.format.json,
        }
    }
}

/// The verbs of `pgs tls`.
#[derive(Debug, Subcommand)]
pub enum TlsVerb {
    /// Install a certificate and its private key
    Set(SetArguments),
    /// List the certificates: their names, their end, what is wrong with them
    Show(FormatArguments),
    /// Make a certificate that vouches for itself, for development
    SelfSigned(SelfSignedArguments),
}

/// Arguments of `pgs tls set`.
#[derive(Debug, Args)]
pub struct SetArguments {
    /// The host name that clients ask for, such as `db.example.com` or `*.db.example.com`
    #[arg(required_unless_present_any = ["default", "tenant"])]
    pub name: Option<String>,
    /// Show it to clients that ask for no name, or for one without a certificate
    #[arg(long, conflicts_with = "name")]
    pub default: bool,
    /// Give it to this tenant's own server, for `tls=passthrough`
    #[arg(long, value_name = "TENANT", conflicts_with_all = ["name", "default"])]
    pub tenant: Option<String>,
    /// The certificate and those that signed it, PEM
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,
    /// Its private key, PEM, without a password
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Arguments of `pgs tls self-signed`.
#[derive(Debug, Args)]
pub struct SelfSignedArguments {
    /// Host name or address that it is for; may be given several times
    #[arg(long, value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    pub name: Vec<String>,
    /// Replace the default certificate that is there
    #[arg(long)]
    pub replace: bool,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArguments,
}
