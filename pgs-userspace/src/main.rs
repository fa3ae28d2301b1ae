//! `pgs`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use pgs::cli::Cli;
use pgs::cli::argument_memory;
use pgs::cli::usage;
use pgs::command;
use pgs::error::Error;
use pgs::error::Kind;
use pgs::output::Printer;
use pgs::privileges;

fn main() -> ExitCode {
    let printer = Printer::for_this_process();
    // Before anything else: it takes passwords off the process list.
    let arguments = match argument_memory::take() {
        Ok(arguments) => arguments,
        Err(error) => {
            let message = format!("cannot take the password off the command line: {error}");
            let error = Error::new(Kind::Internal, message).with_hint("use `--password-file`");
            printer.error(&error, false);
            return ExitCode::from(error.kind().exit_code());
        }
    };
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if wants_json && error.use_stderr() => {
            let error = usage::error(&error, &arguments);
            printer.error(&error, true);
            return ExitCode::from(error.kind().exit_code());
        }
        Err(error) => error.exit(),
    };
    let json = cli.verb.json();
    let done = command::run_alone(&cli);
    match done.unwrap_or_else(|| run(cli, printer)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            printer.error(&error, json);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run(cli: Cli, printer: Printer) -> Result<u8, Error> {
    // Before there is a second thread: what a thread may do it has from the one that starts it.
    let serves = command::confine(&cli)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all();
    if serves {
        builder.on_thread_start(privileges::relinquish_or_log);
    }
    let runtime = builder
        .build()
        .map_err(|error| Error::new(Kind::Internal, format!("cannot start: {error}")))?;
    let result = runtime.block_on(command::run(cli, printer));
    // A thread that waits for a key on standard input must not keep the process alive.
    runtime.shutdown_background();
    result
}
