//! The configuration file: TOML, checked whole, every mistake named with its line.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::configuration::Configuration;
use crate::config::configuration::Effective;
use crate::config::configuration::NotAssigned;
use crate::config::configuration::Origin;
use crate::config::directories::Directories;
use crate::config::limits::CONFIGURATION_FILE_BYTES_MAX;
use crate::config::section::AnySection;
use crate::config::value::nearest;

/// Why a configuration file does not count.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the configuration file `{path}`: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is too large to be one.
    #[error("the configuration file `{path}` is larger than {CONFIGURATION_FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// It says something that makes no sense.
    #[error("the configuration file `{path}` cannot be used:{}", listed(mistakes))]
    Mistaken {
        /// Which.
        path: PathBuf,
        /// Where and why, in the order of their lines.
        mistakes: Vec<Mistake>,
    },
}

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Mistake {
    /// From 1; none for what is wrong between several lines.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

fn listed(mistakes: &[Mistake]) -> String {
    mistakes
        .iter()
        .map(|mistake| format!("\n  {mistake}"))
        .collect()
}

/// The file of the installation in the default state directory.
const SYSTEM_FILE: &str = "/etc/pgs/pgs.toml";

/// The state directory that it is for.
pub const SYSTEM_STATE: &str = "/var/lib/pgs";

/// Where the file of an installation lies unless told otherwise: `/etc/pgs/pgs.toml` for the one in
/// `/var/lib/pgs`, and in its state directory for any other.
pub fn default_path(directories: &Directories) -> PathBuf {
    if directories.state() == Path::new(SYSTEM_STATE) {
        PathBuf::from(SYSTEM_FILE)
    } else {
        directories.state().join("pgs.toml")
    }
}

/// What the file says, on top of the defaults.
///
/// # Errors
/// It cannot be read, or has mistakes.
pub fn read(path: &Path) -> Result<Effective, FileError> {
    let unreadable = |error| FileError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte more than may be, so that more is noticed.
    file.take(CONFIGURATION_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > CONFIGURATION_FILE_BYTES_MAX {
        let path = path.to_owned();
        return Err(FileError::TooLarge { path });
    }
    parse(&text).map_err(|mistakes| FileError::Mistaken {
        path: path.to_owned(),
        mistakes,
    })
}

/// The same for the text of a file.
///
/// # Errors
/// Every mistake in it.
pub fn parse(text: &str) -> Result<Effective, Vec<Mistake>> {
    let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let mut mistakes = Vec::new();
    let mut effective = Effective::default();
    match DeTable::parse(text) {
        Ok(table) => {
            let mut mistaken = |at: usize, message, hint| {
                let line = Some(line(at));
                mistakes.push(Mistake {
                    line,
                    message,
                    hint,
                });
            };
            for (name, value) in table.get_ref() {
                read_section(&mut effective, name, value, &mut mistaken);
            }
        }
        Err(error) => mistakes.push(Mistake {
            line: error.span().map(|span| line(span.start)),
            message: error.message().to_owned(),
            hint: None,
        }),
    }
    if mistakes.is_empty() {
        mistakes.extend(inconsistencies(effective.configuration()));
    }
    mistakes.sort();
    if mistakes.is_empty() {
        Ok(effective)
    } else {
        Err(mistakes)
    }
}

/// What does not hold between several values.
pub fn inconsistencies(configuration: &Configuration) -> Vec<Mistake> {
    let sections = configuration.sections();
    let checked = sections.iter().filter_map(|section| {
        let message = section.check_all().err()?;
        Some(Mistake {
            line: None,
            message: format!("[{}] {message}", section.name()),
            hint: None,
        })
    });
    checked.collect()
}

fn read_section(
    effective: &mut Effective,
    name: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    mistaken: &mut impl FnMut(usize, String, Option<String>),
) {
    let section = name.get_ref().as_ref();
    let known = effective.configuration().sections();
    if !known.iter().any(|known| known.name() == section) {
        let at = name.span().start;
        return match home_of(&known, section) {
            Some(home) => mistaken(
                at,
                format!("`{section}` is in no section"),
                Some(format!("it belongs below `[{home}]`")),
            ),
            None => mistaken(
                at,
                format!("there is no section `{section}`"),
                Some(section_hint(&known, section)),
            ),
        };
    }
    let DeValue::Table(keys) = value.get_ref() else {
        let hint = Some(format!("write `[{section}]`, and its keys below"));
        return mistaken(name.span().start, format!("`{section}` is a section"), hint);
    };
    for (key, value) in keys {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        let assigned = text_of(value.get_ref())
            .map_err(NotAssigned::Value)
            .and_then(|text| effective.assign(section, name, &text, Origin::File));
        match assigned {
            Ok(()) => {}
            Err(NotAssigned::Value(reason)) if knows(effective, section, name) => {
                mistaken(at, format!("`{name}`: {reason}"), None);
            }
            Err(_) => {
                let hint = key_hint(&effective.configuration().sections(), section, name);
                mistaken(at, format!("there is no `{name}` in `[{section}]`"), hint);
            }
        }
    }
}

fn knows(effective: &Effective, section: &str, name: &str) -> bool {
    let rows = effective.configuration().rows();
    rows.iter()
        .any(|row| row.section == section && row.name == name)
}

/// The section that has such a key.
fn home_of(sections: &[&dyn AnySection], key: &str) -> Option<&'static str> {
    let has_it = |section: &&&dyn AnySection| section.rows().iter().any(|row| row.name == key);
    sections.iter().find(has_it).map(|section| section.name())
}

fn section_hint(sections: &[&dyn AnySection], name: &str) -> String {
    let names = || sections.iter().map(|section| section.name());
    match nearest(name, names()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// The key that was meant: of another section, or one that is written much like it.
fn key_hint(sections: &[&dyn AnySection], section: &str, name: &str) -> Option<String> {
    if let Some(home) = home_of(sections, name) {
        return Some(format!("it belongs below `[{home}]`"));
    }
    let section = sections.iter().find(|known| known.name() == section)?;
    match section.nearest_key(name) {
        Some(nearest) => Some(format!("did you mean `{nearest}`?")),
        None => {
            let names: Vec<_> = section.rows().iter().map(|row| row.name).collect();
            Some(format!("there are {}", names.join(", ")))
        }
    }
}

/// A value as it would be written on the command line.
fn text_of(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(on) => Ok(if *on { "on" } else { "off" }.to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        // TLS versions look like one.
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Array(values) => {
            let parts = values.iter().map(|value| match value.get_ref() {
                DeValue::String(text) if text.contains(',') => {
                    Err(format!("`{text}`: a part of a list has no comma"))
                }
                DeValue::String(text) => Ok(text.to_string()),
                other => Err(format!(
                    "a list holds texts in quotes, and no {}",
                    other.type_str()
                )),
            });
            Ok(parts.collect::<Result<Vec<_>, _>>()?.join(","))
        }
        DeValue::Integer(_) => Err("write the number with decimal digits".to_owned()),
        DeValue::Datetime(_) | DeValue::Table(_) => {
            Err(format!("cannot be a {}", value.type_str()))
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
