//! Runs a command inside a tenant's container, as the server's own user.

use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error as DockerError;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::config::limits::EXEC_DEADLINE;
use crate::config::limits::EXEC_END_POLL_INTERVAL;
use crate::config::limits::EXEC_END_POLLS_MAX;
use crate::config::limits::EXEC_OUTPUT_BYTES_MAX;
use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::tenant::id::TenantId;

/// The server's user in the container: the superuser's `peer`.
pub(super) const SERVER_USER: &str = "postgres";

/// A command for inside a container.
pub struct Command {
    /// What it is for, in error messages.
    task: String,
    arguments: Vec<String>,
    environment: Vec<String>,
    input: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// How long it may take; none where nobody can say.
    deadline: Option<Duration>,
}

impl Command {
    /// A command of pgs's own that reads nothing. It may take [`EXEC_DEADLINE`], and none of the
    /// tenant's event triggers runs in it.
    pub fn new(task: impl Into<String>, arguments: &[&str]) -> Self {
        let arguments = arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect();
        Self {
            task: task.into(),
            arguments,
            environment: vec![own_options()],
            input: None,
            deadline: Some(EXEC_DEADLINE),
        }
    }

    /// The same command for SQL of the user's: it may take hours, and event triggers belong to it.
    #[must_use]
    pub fn with_users_sql(mut self) -> Self {
        self.environment.clear();
        self.deadline = None;
        self
    }

    /// The same command with something to read on its standard input. What goes this way is in no
    /// process list and in no log.
    #[must_use]
    pub fn with_input(mut self, input: impl AsyncRead + Send + 'static) -> Self {
        self.input = Some(Box::pin(input));
        self
    }
}

/// For libpq in the container. A login event trigger of the tenant's could sleep for ever
/// (PostgreSQL 17 and later), and a statement that waits for a lock would be carried out long
/// after it was given up: a password would change to one that nobody was told.
fn own_options() -> String {
    let seconds = EXEC_DEADLINE.as_secs();
    format!("PGOPTIONS=-c event_triggers=off -c statement_timeout={seconds}s")
}

impl Engine {
    /// Runs a command to its end and gives what it printed on standard output, cut to
    /// [`EXEC_OUTPUT_BYTES_MAX`].
    ///
    /// # Errors
    /// The container does not run, the call failed, the command's exit code is not 0, or it did not
    /// end in time: Docker cannot end it, so it may still be carried out.
    pub async fn execute(
        &self,
        tenant: &TenantId,
        command: Command,
    ) -> Result<String, ContainerError> {
        let Some(deadline) = command.deadline else {
            return self.execute_to_its_end(tenant, command).await;
        };
        let task = command.task.clone();
        let ended = timeout(deadline, self.execute_to_its_end(tenant, command)).await;
        ended.unwrap_or_else(|_| {
            Err(ContainerError::Unended {
                task,
                container: self.installation.name_of(tenant),
                waited: deadline,
            })
        })
    }

    async fn execute_to_its_end(
        &self,
        tenant: &TenantId,
        command: Command,
    ) -> Result<String, ContainerError> {
        let container = self.installation.name_of(tenant);
        let Command {
            task,
            arguments,
            environment,
            input,
            deadline: _,
        } = command;
        let config = ExecConfig {
            cmd: Some(arguments),
            env: Some(environment),
            user: Some(SERVER_USER.to_owned()),
            attach_stdin: Some(input.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = self.create_exec(&container, config).await?;
        let failed = || ContainerError::call("run a command in", container.clone());
        let started = self
            .docker
            .start_exec(&exec, None)
            .await
            .map_err(failed())?;
        let StartExecResults::Attached {
            output,
            input: to_command,
        } = started
        else {
            return Err(failed()(DockerError::RequestTimeoutError));
        };
        // Both at once: a command that prints while it reads would else wait for us for ever.
        let feeding = feed(input, to_command);
        let ((), (out, err)) = tokio::join!(feeding, collect(output));
        let code = self.exit_code(&exec, &container).await?;
        if code == 0 {
            return Ok(out);
        }
        Err(ContainerError::Execution {
            task,
            container,
            code,
            output: err + &out,
        })
    }

    pub(super) async fn create_exec(
        &self,
        container: &str,
        config: ExecConfig,
    ) -> Result<String, ContainerError> {
        let created = self.docker.create_exec(container, config).await;
        created.map(|exec| exec.id).map_err(|error| match error {
            DockerError::DockerResponseServerError {
                status_code: 404, ..
            } => ContainerError::Missing {
                container: container.to_owned(),
            },
            // As Docker says it; its processes are there, and their sessions.
            DockerError::DockerResponseServerError {
                status_code: 409,
                message,
            } if message.contains(" is paused") => ContainerError::Paused {
                container: container.to_owned(),
            },
            DockerError::DockerResponseServerError {
                status_code: 409, ..
            } => ContainerError::NotRunning {
                container: container.to_owned(),
            },
            other => ContainerError::call("run a command in", container)(other),
        })
    }

    pub(super) async fn exit_code(
        &self,
        exec: &str,
        container: &str,
    ) -> Result<i64, ContainerError> {
        for _ in 0..EXEC_END_POLLS_MAX {
            let inspected = self.docker.inspect_exec(exec).await;
            let inspected =
                inspected.map_err(ContainerError::call("look at a command in", container))?;
            if let (Some(code), false) = (inspected.exit_code, inspected.running == Some(true)) {
                return Ok(code);
            }
            // Its output has ended, and Docker is about to notice that the command has too.
            tokio::time::sleep(EXEC_END_POLL_INTERVAL).await;
        }
        Ok(-1)
    }
}

async fn feed(
    input: Option<Pin<Box<dyn AsyncRead + Send>>>,
    mut to_command: Pin<Box<dyn AsyncWrite + Send>>,
) {
    if let Some(mut input) = input {
        // A command that ends before it has read everything says why by its exit code.
        if tokio::io::copy(&mut input, &mut to_command).await.is_err() {
            return;
        }
    }
    drop(to_command.shutdown().await);
}

async fn collect(
    mut output: Pin<Box<dyn futures_util::Stream<Item = Result<LogOutput, DockerError>> + Send>>,
) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(Ok(chunk)) = output.next().await {
        let (target, message) = match chunk {
            LogOutput::StdErr { message } => (&mut err, message),
            LogOutput::StdOut { message }
            | LogOutput::StdIn { message }
            | LogOutput::Console { message } => (&mut out, message),
        };
        let room = EXEC_OUTPUT_BYTES_MAX.saturating_sub(target.len());
        target.extend_from_slice(&message[..room.min(message.len())]);
    }
    (
        String::from_utf8_lossy(&out).into_owned(),
        String::from_utf8_lossy(&err).into_owned(),
    )
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
