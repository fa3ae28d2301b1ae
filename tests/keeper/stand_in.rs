//! A router of descriptors only, as a process of its own that can be killed.
//!
//! It connects to the two sockets that the test listens on, once for each slot, keeps both ends and
//! a datagram socket under that slot, says which they are, and waits.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use pgs::keeper::link::Launch;
use pgs::keeper::link::ProcessStore;
use pgs::keeper::store::DescriptorStore;
use pgs::keeper::store::Farewell;
use pgs::keeper::store::GlobalName;
use pgs::keeper::store::SlotDescriptors;
use pgs::keeper::systemd::Environment;
use pgs::keeper::systemd::SystemdStore;
use pgs_tests::process;
use pgs_tests::router::pgs_binary;

use crate::ground::Ground;
use crate::ground::Session;
use crate::ground::inode;
use crate::ground::slot;

const MARK: &str = "stand-in-router";
const END_LIMIT: Duration = Duration::from_secs(10);

/// Plays the router, if this process was started for that.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).map(String::as_str) != Some(MARK) {
        return None;
    }
    match play(&arguments[2..]) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            say(&format!("failed {error:#}"));
            Some(ExitCode::FAILURE)
        }
    }
}

fn say(line: &str) {
    // The test may have gone: then nobody is interested.
    writeln!(std::io::stdout(), "{line}").ok();
}

fn play(arguments: &[String]) -> anyhow::Result<()> {
    let [run, wait, client, backend, count] = arguments else {
        anyhow::bail!("{} arguments", arguments.len());
    };
    let launch = launch(Path::new(run), Duration::from_millis(wait.parse()?));
    let store: Arc<dyn DescriptorStore> = match Environment::of_this_process() {
        Some(environment) => Arc::new(SystemdStore::open(&environment)?),
        None => Arc::new(ProcessStore::open(launch, false, Box::new(|_| {}))?),
    };
    let held = store.take_all();
    for (name, descriptor) in &held.globals {
        say(&format!("held {name} {}", inode(descriptor)?));
    }
    for (slot, descriptors) in &held.slots {
        say(&format!(
            "held-slot {} {}",
            slot.number(),
            inodes(descriptors)?
        ));
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    store.put_global(&global("listener.0")?, listener.as_fd())?;
    say(&format!("listening {}", listener.local_addr()?));
    let client: SocketAddr = client.parse()?;
    let mut all = Vec::new();
    for number in 0..count.parse()? {
        let near: SlotDescriptors<OwnedFd> = SlotDescriptors::from_parts([
            Some(TcpStream::connect(client)?.into()),
            Some(UnixStream::connect(backend)?.into()),
            Some(UnixDatagram::unbound()?.into()),
        ]);
        store.put_slot(slot(number), &near.borrowed())?;
        say(&format!("slot {number} {}", inodes(&near)?));
        all.push(near);
    }
    say("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let farewell = match line.trim() {
        "ended" => Farewell::Ended,
        other => anyhow::bail!("told {other:?}"),
    };
    Ok(store.goodbye(farewell)?)
}

fn inodes(descriptors: &SlotDescriptors<OwnedFd>) -> anyhow::Result<String> {
    let parts = descriptors.parts().map(|part| part.map(inode).transpose());
    let mut text = Vec::new();
    for part in parts {
        text.push(part?.map_or("-".to_owned(), |inode| inode.to_string()));
    }
    Ok(text.join(" "))
}

pub(crate) fn global(name: &str) -> anyhow::Result<GlobalName> {
    GlobalName::new(name).with_context(|| format!("no name: {name}"))
}

pub(crate) fn launch(run: &Path, return_wait: Duration) -> Launch {
    Launch {
        program: pgs_binary(),
        run: run.to_owned(),
        return_wait,
    }
}

/// The process, seen from the test. Killed when dropped.
pub(crate) struct StandIn {
    child: Child,
    input: Option<ChildStdin>,
    /// What it said before it was ready.
    pub(crate) said: Vec<String>,
    pub(crate) listening: SocketAddr,
}

impl StandIn {
    /// The command that starts it on a ground.
    pub(crate) fn command(ground: &Ground, count: u32) -> anyhow::Result<Command> {
        // It dies of these also where the tests were started with them ignored: by `nohup`, or by a
        // shell in the background.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=HUP,INT,TERM")
            .arg(std::env::current_exe()?)
            .arg(MARK)
            .arg(ground.run())
            .arg(ground.return_wait.as_millis().to_string())
            .arg(ground.client_listener.local_addr()?.to_string())
            .arg(ground.backend_path())
            .arg(count.to_string())
            .env("PGS_BIN", absolute(&pgs_binary())?)
            .env_remove("NOTIFY_SOCKET");
        Ok(command)
    }

    /// Starts it with so many slots, and gives the far ends of their sockets.
    pub(crate) fn start(ground: &Ground, count: u32) -> anyhow::Result<(Self, Vec<Session>)> {
        Self::start_by(Self::command(ground, count)?, ground, count)
    }

    pub(crate) fn start_by(
        mut command: Command,
        ground: &Ground,
        count: u32,
    ) -> anyhow::Result<(Self, Vec<Session>)> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting the stand-in router")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut sessions = Vec::new();
        let mut said = Vec::new();
        for line in output.lines() {
            let line = line?;
            ensure!(!line.starts_with("failed"), "the stand-in router {line}");
            if line.starts_with("slot ") {
                sessions.push(ground.far_ends(&line)?);
            }
            said.push(line);
            if said.last().is_some_and(|line| line == "ready") {
                break;
            }
        }
        ensure!(sessions.len() == count as usize, "{said:?}");
        let listening = said.iter().find_map(|line| line.strip_prefix("listening "));
        let listening = listening.context("it does not listen")?.parse()?;
        Ok((
            Self {
                child,
                input,
                said,
                listening,
            },
            sessions,
        ))
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the whole process group, and waits for this process to be gone.
    pub(crate) fn kill_group(&mut self, signal: Signal) -> anyhow::Result<()> {
        killpg(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        let status = process::wait(&mut self.child, END_LIMIT)?;
        ensure!(status.is_some(), "{signal} did not end the stand-in router");
        Ok(())
    }

    /// Lets it leave in order.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        let mut input = self.input.take().context("no input")?;
        writeln!(input, "ended")?;
        let status = process::wait(&mut self.child, END_LIMIT)?;
        ensure!(status.is_some_and(|status| status.success()), "{status:?}");
        Ok(())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Most tests have killed it already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("there is no `{}`: build it first", path.display()))
}
