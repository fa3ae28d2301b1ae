//! A command inside a tenant's container with this process's terminal, or its pipes.

use std::io;
use std::io::IsTerminal;

use bollard::container::LogOutput;
use bollard::errors::Error as DockerError;
use bollard::exec::ResizeExecOptions;
use bollard::exec::StartExecOptions;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt;
use nix::sys::termios;
use nix::sys::termios::SetArg;
use nix::sys::termios::Termios;
use terminal_size::Height;
use terminal_size::Width;
use terminal_size::terminal_size;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::execute::SERVER_USER;
use crate::tenant::id::TenantId;

/// As shells say of a program that has ended because nobody reads any more: 128 and SIGPIPE.
const READER_GONE_EXIT_CODE: i64 = 128 + 13;

/// Puts the terminal back as it was when it is dropped. A signal must not end the process before.
struct RawMode {
    before: Termios,
}

impl RawMode {
    fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before).unwrap_or_default();
    }
}

impl Engine {
    /// Runs a command with this process's standard streams until it ends, and gives its exit code.
    /// It gets a terminal where standard input and output are one.
    ///
    /// # Errors
    /// The container does not run, or the call failed.
    pub async fn attach(
        &self,
        tenant: &TenantId,
        arguments: Vec<String>,
        environment: Vec<String>,
    ) -> Result<i64, ContainerError> {
        let container = self.installation.name_of(tenant);
        let tty = io::stdin().is_terminal() && io::stdout().is_terminal();
        let config = ExecConfig {
            cmd: Some(arguments),
            env: Some(environment),
            user: Some(SERVER_USER.to_owned()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(tty),
            ..ExecConfig::default()
        };
        let exec = self.create_exec(&container, config).await?;
        let failed = || ContainerError::call("run a command in", container.as_str());
        let options = StartExecOptions {
            tty,
            ..StartExecOptions::default()
        };
        let started = self
            .docker
            .start_exec(&exec, Some(options))
            .await
            .map_err(failed())?;
        let StartExecResults::Attached { mut output, input } = started else {
            return Err(failed()(DockerError::RequestTimeoutError));
        };
        let raw = if tty { RawMode::enter().ok() } else { None };
        let feeding = tokio::spawn(feed(input));
        let resizing = tty.then(|| tokio::spawn(follow_size(self.clone(), exec.clone())));
        let mut shown = Ok(());
        while let Some(Ok(piece)) = output.next().await {
            shown = show(&piece).await;
            if shown.is_err() {
                break;
            }
        }
        feeding.abort();
        if let Some(resizing) = resizing {
            resizing.abort();
        }
        drop(raw);
        // The command prints on, to nobody, and ends by itself.
        match shown {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(READER_GONE_EXIT_CODE);
            }
            Err(err) => return Err(failed()(DockerError::IOError { err })),
            Ok(()) => {}
        }
        self.exit_code(&exec, &container).await
    }
}

async fn feed(mut to_command: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>) {
    if tokio::io::copy(&mut tokio::io::stdin(), &mut to_command)
        .await
        .is_ok()
    {
        drop(to_command.shutdown().await);
    }
    // Dropping it would close the connection while the command still prints.
    std::future::pending::<()>().await;
}

/// Not by a write that blocks: while nobody reads what is shown, signals are to be heard.
async fn show(piece: &LogOutput) -> io::Result<()> {
    if let LogOutput::StdErr { message } = piece {
        let mut stderr = tokio::io::stderr();
        stderr.write_all(message).await?;
        return stderr.flush().await;
    }
    let mut stdout = tokio::io::stdout();
    stdout.write_all(piece.as_ref()).await?;
    stdout.flush().await
}

/// Tells the command's terminal this one's size, now and whenever it changes.
async fn follow_size(engine: Engine, exec: String) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        if let Some((Width(width), Height(height))) = terminal_size() {
            let size = ResizeExecOptions { height, width };
            drop(engine.docker.resize_exec(&exec, size).await);
        }
        changes.recv().await;
    }
}
