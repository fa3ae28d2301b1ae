//! `pgs completions`.

use clap::CommandFactory;

use crate::cli::Cli;
use crate::cli::CompletionsArguments;
use crate::command::Context;
use crate::error::Error;

/// Prints a completion script.
pub(super) fn run(context: &Context, arguments: &CompletionsArguments) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "pgs", &mut script);
    context.printer.bytes(&script)
}
