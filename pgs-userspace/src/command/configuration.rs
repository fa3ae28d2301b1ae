//! `pgs config`, and the configuration that every verb reads.

use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::admin::client;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::cli::configuration::CheckArguments;
use crate::cli::configuration::ConfigArguments;
use crate::cli::configuration::ConfigVerb;
use crate::command::Context;
use crate::config::configuration::Effective;
use crate::config::file;
use crate::config::file::FileError;
use crate::config::source::Said;
use crate::config::source::Source;
use crate::config::source::SourceError;
use crate::error::Error;
use crate::error::Kind;
use crate::output::table::Table;

/// Checks or shows the configuration.
pub(super) async fn run(context: &Context, arguments: ConfigArguments) -> Result<(), Error> {
    match arguments.verb {
        ConfigVerb::Check(arguments) => check(context, arguments),
        ConfigVerb::Show(format) => show(context, format.json),
        ConfigVerb::Reload(format) => reload(context, format.json).await,
    }
}

/// The file that counts, if there is one, and what holds.
///
/// A file that was named must exist; the default one need not.
pub(super) fn read(context: &Context) -> Result<(Option<PathBuf>, Effective), Error> {
    Ok(source(context, Vec::new()).read()?)
}

/// Where it comes from, with what the command line says on top of it.
pub(super) fn source(context: &Context, said: Vec<Said>) -> Source {
    Source::new(&context.directories, context.config.clone(), said)
}

/// Has the router read it again.
async fn reload(context: &Context, json: bool) -> Result<(), Error> {
    let socket = context.directories.admin_socket();
    let Response::Reloaded(report) = client::ask(&socket, &Request::Reload).await? else {
        let message = "`pgs serve` answered another question than was asked";
        return Err(Error::new(Kind::Internal, message));
    };
    let printer = context.printer;
    if let Some(error) = &report.error {
        let message = format!("the router keeps what it has: {error}");
        let hint = "`pgs config check` says when the file can be used";
        return Err(Error::new(Kind::Configuration, message).with_hint(hint));
    }
    if json {
        return printer.json(&json!(report));
    }
    if report.changed.is_empty() {
        printer.line("nothing has changed")?;
    }
    for change in &report.changed {
        printer.line(&change.to_string())?;
    }
    for change in &report.needs_restart {
        printer.line(&format!("{change}, once `pgs serve` is started anew"))?;
    }
    warn(context, &report.cautions);
    Ok(())
}

fn check(context: &Context, arguments: CheckArguments) -> Result<(), Error> {
    let asked = Context {
        config: arguments.file.or_else(|| context.config.clone()),
        ..context.clone()
    };
    let (path, effective) = read(&asked)?;
    let cautions = effective.configuration().cautions();
    if arguments.format.json {
        return context
            .printer
            .json(&json!({ "file": path, "usable": true, "cautions": cautions }));
    }
    warn(context, &cautions);
    match path {
        Some(path) => context
            .printer
            .line(&format!("{}: can be used", path.display())),
        None => {
            let default = file::default_path(&context.directories);
            none(context, &default)
        }
    }
}

fn warn(context: &Context, cautions: &[String]) {
    for caution in cautions {
        context.printer.warning(caution);
    }
}

fn none(context: &Context, default: &Path) -> Result<(), Error> {
    context.printer.line(&format!(
        "there is no `{}`: the defaults hold",
        default.display()
    ))
}

fn show(context: &Context, json: bool) -> Result<(), Error> {
    let (path, effective) = read(context)?;
    let rows = effective.configuration().rows();
    if json {
        let keys: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "section": row.section,
                    "name": row.name,
                    "value": row.value,
                    "origin": effective.origin(row),
                })
            })
            .collect();
        return context.printer.json(&json!({ "file": path, "keys": keys }));
    }
    let mut table = Table::new(&["SECTION", "KEY", "VALUE", "FROM"]);
    for row in &rows {
        let origin = effective.origin(row).name();
        table.row([row.section, row.name, &row.value, origin]);
    }
    context.printer.line(&table.render())?;
    match path {
        Some(path) => context.printer.note(&format!("file: {}", path.display())),
        None => none(context, &file::default_path(&context.directories))?,
    }
    Ok(())
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::File(error) => error.into(),
            SourceError::Said { .. } => Self::new(Kind::Usage, error.to_string()),
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        let kind = match &error {
            FileError::Unreadable { error, .. } => match error.kind() {
                std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
                _ => Kind::Configuration,
            },
            FileError::TooLarge { .. } | FileError::Mistaken { .. } => Kind::Configuration,
        };
        let made = Self::new(kind, error.to_string());
        match error {
            FileError::Unreadable { error, .. } if error.kind() == std::io::ErrorKind::NotFound => {
                made.with_hint("make it, or name another; without one the defaults hold")
            }
            FileError::Mistaken { .. } => {
                made.with_hint("correct the file; `pgs config check` looks at it again")
            }
            _ => made,
        }
    }
}
