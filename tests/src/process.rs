//! A subprocess with a time limit, and what came out of it.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

/// How often a running process is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// For messages.
    pub command: String,
}

impl Finished {
    /// What it printed, if it succeeded.
    pub fn success(self) -> anyhow::Result<String> {
        let Self {
            status,
            stdout,
            stderr,
            command,
        } = self;
        ensure!(
            status.success(),
            "`{command}` ended with {status}\n{stdout}{stderr}"
        );
        Ok(stdout)
    }
}

/// Runs it to its end; past `limit` it is killed and that is an error.
pub fn run(command: &mut Command, limit: Duration) -> anyhow::Result<Finished> {
    run_with_input(command, &[], limit)
}

/// The same, with something to read on its standard input.
pub fn run_with_input(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
) -> anyhow::Result<Finished> {
    let name = format!("{command:?}");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("starting `{name}`"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut pipe) = child.stdin.take() {
        // A process need not read its input to its end.
        pipe.write_all(input).or_else(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })?;
    }
    let status = wait(&mut child, limit)?;
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    match status {
        Some(status) => Ok(Finished {
            status,
            stdout,
            stderr,
            command: name,
        }),
        None => bail!("`{name}` was killed after {limit:?}\n{stdout}{stderr}"),
    }
}

/// `None` if it had to be killed.
pub fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Waits for something to become true.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(POLL * 4);
    }
}

/// Whether a process runs. One that has ended and is not reaped yet does not.
pub fn is_alive(process_id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default().chars().next();
    !matches!(state, None | Some('Z' | 'X'))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Option<JoinHandle<String>> {
    let mut pipe = pipe?;
    Some(thread::spawn(move || {
        let mut bytes = Vec::new();
        let error = pipe.read_to_end(&mut bytes).err();
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        text.extend(error.map(|error| format!("\n(reading stopped: {error})\n")));
        text
    }))
}

fn joined(reader: Option<JoinHandle<String>>) -> String {
    reader
        .and_then(|reader| reader.join().ok())
        .unwrap_or_default()
}
