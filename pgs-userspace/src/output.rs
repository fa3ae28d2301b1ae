//! What a person or a program reads: tables, JSON, progress; control characters made harmless.
//!
//! Standard output carries what can be piped on, standard error all the rest.

use std::env;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

use serde::Serialize;

use crate::error::Error;
use crate::error::Kind;

pub mod progress;
pub mod table;

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    progress: bool,
    colour: bool,
    terminal_output: bool,
}

impl Printer {
    /// Progress and colour only where standard error is a terminal, colour only without `NO_COLOR`.
    pub fn for_this_process() -> Self {
        let terminal = io::stderr().is_terminal();
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal_output = io::stdout().is_terminal();
        Self {
            progress: terminal,
            colour: terminal && !no_colour,
            terminal_output,
        }
    }

    /// Whether standard output goes to a terminal.
    pub fn is_terminal_output(self) -> bool {
        self.terminal_output
    }

    /// Data, one line.
    ///
    /// # Errors
    /// Standard output cannot be written; a reader that has gone is no error.
    pub fn line(self, text: &str) -> Result<(), Error> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Data, as it is.
    ///
    /// # Errors
    /// Standard output cannot be written; a reader that has gone is no error.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes_while_read(bytes).map(drop)
    }

    /// Data, as it is; whether its reader is still there.
    ///
    /// # Errors
    /// Standard output cannot be written; a reader that has gone is no error.
    pub fn bytes_while_read(self, bytes: &[u8]) -> Result<bool, Error> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => {
                let kind = match error.kind() {
                    io::ErrorKind::StorageFull => Kind::NoSpace,
                    _ => Kind::Internal,
                };
                Err(Error::new(
                    kind,
                    format!("cannot write to standard output: {error}"),
                ))
            }
        }
    }

    /// Data as JSON, indented, one value.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn json(self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::new(Kind::Internal, format!("cannot write JSON: {error}")))?;
        self.line(&text)
    }

    /// What a person may want to know; no data.
    pub fn note(self, text: &str) {
        self.diagnostic(&sanitised(text));
    }

    /// What went wrong without ending the command.
    pub fn warning(self, text: &str) {
        self.diagnostic(&format!(
            "{} {}",
            self.painted("warning:", "33"),
            sanitised(text)
        ));
    }

    /// What to do next.
    pub fn hint(self, text: &str) {
        self.diagnostic(&format!(
            "{} {}",
            self.painted("hint:", "36"),
            sanitised(text)
        ));
    }

    /// An error that ends the command: for people, or as one JSON line.
    pub fn error(self, error: &Error, json: bool) {
        if json {
            self.diagnostic(&error.to_json().to_string());
            return;
        }
        let label = self.painted("error:", "31");
        self.diagnostic(&format!("{label} {}", sanitised(&error.to_string())));
        if let Some(hint) = error.hint() {
            self.hint(hint);
        }
    }

    fn diagnostic(self, text: &str) {
        // Nobody is left to be told that standard error is gone.
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    fn painted(self, text: &str, code: &str) -> String {
        if self.colour {
            format!("\u{1b}[1;{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text from elsewhere, such as a client's user name, with control characters spelt out, so that
/// it cannot move a terminal's cursor. Line ends and tabs stay.
pub fn sanitised(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => clean.push(character),
            _ if character.is_control() || is_reordering(character) => {
                clean.extend(character.escape_unicode());
            }
            _ => clean.push(character),
        }
    }
    clean
}

/// The same for one cell or one line: line ends and tabs are spelt out too.
pub fn sanitised_line(text: &str) -> String {
    sanitised(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// Characters that make text read other than it is written (Unicode's explicit bidirectional
/// formatting, UAX 9).
fn is_reordering(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_nothing() {
        assert_eq!(sanitised("a\u{1b}[2Jb\r"), "a\\u{1b}[2Jb\\u{d}");
        assert_eq!(sanitised("äö 漢 \n\t"), "äö 漢 \n\t");
        assert_eq!(sanitised_line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(sanitised("x\u{202e}y"), "x\\u{202e}y");
    }
}
