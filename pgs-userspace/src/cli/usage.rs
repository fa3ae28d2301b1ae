//! What is wrong with a command line, for a program that reads JSON.

use std::ffi::OsString;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::error::Error;
use crate::error::Kind;

/// What clap says of it, without the label and without how it is used: the help says that.
pub fn error(refused: &clap::Error, arguments: &[OsString]) -> Error {
    let rendered = refused.render().to_string();
    let text = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    let what = text.lines().map(str::trim).take_while(|l| !l.is_empty());
    let message = what.collect::<Vec<_>>().join(" ");
    Error::new(Kind::Usage, message).with_hint(format!("`{} --help`", verb(arguments)))
}

/// The verb that was meant, with `pgs` before it.
fn verb(arguments: &[OsString]) -> String {
    let command = Cli::command();
    let mut path = vec![command.get_name()];
    let mut at = &command;
    for argument in arguments.iter().skip(1) {
        if let Some(verb) = at.find_subcommand(argument) {
            path.push(verb.get_name());
            at = verb;
        }
    }
    path.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn told(line: &str) -> (String, String) {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let refused = Cli::try_parse_from(&arguments).err();
        let error = error(&refused.expect("a mistake"), &arguments);
        (error.to_string(), error.hint().unwrap_or_default().into())
    }

    #[test]
    fn the_argument_and_the_verb_are_named() {
        let cases = [
            ("pgs list --json extra", "`pgs list --help`"),
            ("pgs tls show --json extra", "`pgs tls show --help`"),
            ("pgs enable-access a extra --json", "`pgs enable --help`"),
            ("pgs --run-dir /x stop extra --extra", "`pgs stop --help`"),
            ("pgs extra --json", "`pgs --help`"),
        ];
        for (line, help) in cases {
            let (message, hint) = told(line);
            assert!(message.contains("extra"), "{line}: {message}");
            let is_bare = !message.contains("error:") && !message.contains("Usage");
            assert!(is_bare && !message.contains('\n'), "{line}: {message}");
            assert_eq!(hint, help, "{line}");
        }
        let (message, _) = told("pgs enable --json");
        assert!(message.ends_with("not provided: <TENANT>"), "{message}");
    }
}
