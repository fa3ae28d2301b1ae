//! `pgs config`, and the configuration that every verb reads.

use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::cli::configuration::CheckArguments;
use crate::cli::configuration::ConfigArguments;
use crate::cli::configuration::ConfigVerb;
use crate::command::Context;
use crate::config::configuration::Effective;
use crate::config::configuration::NotAssigned;
use crate::config::file;
use crate::config::file::FileError;
use crate::error::Error;
use crate::error::Kind;
use crate::output::table::Table;

/// Checks or shows the configuration.
pub(super) fn run(context: &Context, arguments: ConfigArguments) -> Result<(), Error> {
    match arguments.verb {
        ConfigVerb::Check(arguments) => check(context, arguments),
        ConfigVerb::Show(format) => show(context, format.json),
    }
}

/// The file that counts, if there is one, and what holds.
///
/// A file that was named must exist; the default one need not.
pub(super) fn read(context: &Context) -> Result<(Option<PathBuf>, Effective), Error> {
    let (path, named) = match &context.config {
        Some(path) => (path.clone(), true),
        None => (file::default_path(&context.directories), false),
    };
    match file::read(&path) {
        Ok(effective) => Ok((Some(path), effective)),
        Err(FileError::Unreadable { error, .. })
            if !named && error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok((None, Effective::default()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Why a value of the command line was not taken over.
pub(super) fn refused(name: &str, error: &NotAssigned) -> Error {
    let message = match error {
        NotAssigned::Value(reason) => format!("`{name}`: {reason}"),
        NotAssigned::Section | NotAssigned::Key => format!("there is no `{name}`"),
    };
    Error::new(Kind::Usage, message)
}

fn check(context: &Context, arguments: CheckArguments) -> Result<(), Error> {
    let asked = Context {
        config: arguments.file.or_else(|| context.config.clone()),
        ..context.clone()
    };
    let (path, _) = read(&asked)?;
    if arguments.format.json {
        return context
            .printer
            .json(&json!({ "file": path, "usable": true }));
    }
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

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        let kind = match &error {
            FileError::Unreadable { error, .. } => match error.kind() {
                std::io::ErrorKind::NotFound => Kind::NotFound,
                std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
                _ => Kind::Configuration,
            },
            FileError::TooLarge { .. } | FileError::Mistaken { .. } => Kind::Configuration,
        };
        let made = Self::new(kind, error.to_string());
        match error {
            FileError::Mistaken { .. } => {
                made.with_hint("`pgs config show` lists every key once the file can be used")
            }
            _ => made,
        }
    }
}
