//! `pgs serve`.

use tracing_subscriber::EnvFilter;

use crate::cli::serve::KeeperChoice;
use crate::cli::serve::LogFormatChoice;
use crate::cli::serve::PathChoice;
use crate::cli::serve::ServeArguments;
use crate::command::Context;
use crate::command::configuration;
use crate::config::sections::LogFormat;
use crate::config::source::Said;
use crate::config::value::Value as _;
use crate::datapath::DataPathError;
use crate::datapath::PathRequest;
use crate::error::Error;
use crate::error::Kind;
use crate::server;
use crate::server::ServeError;
use crate::server::Settings;

/// Which log lines are printed: a level, or levels by module, as `tracing` writes them.
const LOG_VARIABLE: &str = "PGS_LOG";

/// Runs the router until it is told to end.
pub(super) async fn run(context: &Context, arguments: ServeArguments) -> Result<(), Error> {
    let source = configuration::source(context, said(&arguments));
    let (file, effective) = source.read()?;
    let configuration = effective.into_configuration();
    log(configuration.serve.log_format)?;
    let settings = Settings {
        directories: context.directories.clone(),
        configuration,
        source,
        configuration_file: file,
        take_over: arguments.take_over,
        keeper: arguments.keeper == KeeperChoice::Auto,
    };
    server::run(settings).await.map_err(Error::from)
}

/// What the command line says, as the configuration file would.
fn said(arguments: &ServeArguments) -> Vec<Said> {
    let ServeArguments {
        listen,
        path,
        log_format,
        drain_seconds,
        tls_required,
        tls_domain,
        sessions_max,
        proxy_protocol_from,
        // Assumed already, before there was a second thread.
        user: _,
        // Of this start, and so of no file.
        take_over: _,
        keeper: _,
    } = arguments;
    let listen = (!listen.is_empty()).then(|| listen.text());
    let path = path.map(|path| match path {
        PathChoice::Auto => PathRequest::Auto.text(),
        PathChoice::Kernel => PathRequest::Kernel.text(),
        PathChoice::Relay => PathRequest::Relay.text(),
    });
    let log_format = log_format.map(|format| match format {
        LogFormatChoice::Text => LogFormat::Text.text(),
        LogFormatChoice::Json => LogFormat::Json.text(),
    });
    let drain = drain_seconds.map(|seconds| seconds.to_string());
    let domains = (!tls_domain.is_empty()).then(|| tls_domain.join(","));
    let proxies = (!proxy_protocol_from.is_empty()).then(|| proxy_protocol_from.join(","));
    [
        ("proxy_protocol", "trusted", proxies),
        ("serve", "listen", listen),
        ("serve", "path", path),
        ("serve", "log_format", log_format),
        ("serve", "drain_deadline", drain),
        ("tls", "required", tls_required.then(|| true.text())),
        ("tls", "domains", domains),
        ("limits", "sessions_max", sessions_max.map(|max| max.text())),
    ]
    .into_iter()
    .filter_map(|(section, name, text)| {
        let text = text?;
        Some(Said {
            section,
            name,
            text,
        })
    })
    .collect()
}

/// Log lines go to standard error: standard output is for what can be piped on.
fn log(format: LogFormat) -> Result<(), Error> {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| {
            Error::new(Kind::Usage, format!("{LOG_VARIABLE}=`{text}`: {error}"))
                .with_hint("`info`, `debug`, or by module: `info,pgs::server=debug`")
        })?,
        Err(_) => EnvFilter::new("info"),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let begun = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    begun.map_err(|error| Error::new(Kind::Internal, format!("cannot log: {error}")))
}

impl From<ServeError> for Error {
    fn from(error: ServeError) -> Self {
        let (kind, hint) = match &error {
            ServeError::AddressInUse { .. } => (
                Kind::PortInUse,
                Some("`ss -ltnp` names the program; `--listen` takes another port"),
            ),
            ServeError::Running(_) => (
                Kind::Busy,
                Some(
                    "`--take-over` takes over from it; several can live side by side with \
                     `--state-dir` and `--run-dir`",
                ),
            ),
            ServeError::NoTakeOver(_) => (
                Kind::Busy,
                Some("end it first; where it is a unit of systemd, `systemctl restart` takes over"),
            ),
            ServeError::TakeOver { .. } => (
                Kind::Busy,
                Some("the other router serves on; its log says what it waited for"),
            ),
            ServeError::Registry(_) => (Kind::Registry, None),
            ServeError::System { error, .. } | ServeError::Listen { error, .. }
                if error.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                (Kind::PermissionDenied, Some("run it as root"))
            }
            // The one who asked for nothing but the kernel path: else there is the relay.
            ServeError::DataPath(DataPathError::KernelRefused(_)) => (
                Kind::Internal,
                Some("`--path auto` falls back to the relay; `pgs doctor` looks closer"),
            ),
            ServeError::NoCertificate(_) => (
                Kind::Configuration,
                Some("`pgs tls set --default` installs one, `pgs tls self-signed` makes one"),
            ),
            ServeError::Privileges(_) => (Kind::PermissionDenied, None),
            ServeError::DataPath(DataPathError::Worker(_))
            | ServeError::Tls(_)
            | ServeError::System { .. }
            | ServeError::Thread(_)
            | ServeError::Fault(_)
            | ServeError::Listen { .. } => (Kind::Internal, None),
        };
        let made = Error::new(kind, error.to_string());
        match hint {
            Some(hint) => made.with_hint(hint),
            None => made,
        }
    }
}
