//! A router that says what it has allocated: one line for each byte on its standard input.

use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use clap::Parser as _;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs::cli::Cli;
use pgs::command;
use pgs::output::Printer;
use pgs::privileges;
use pgs_tests::process::eventually;
use pgs_tests::process::wait;
use pgs_tests::router::DataPath;
use pgs_tests::skip::Skip;
use pgs_tests::stand_in::StandIn;

use crate::ALLOCATOR;

/// Verbs by which this program is `pgs`: its own, and that of the keeper that it starts.
const VERBS: [&str; 2] = ["serve", "keeper"];

const LIMIT: Duration = Duration::from_secs(30);

/// As long as nothing is allocated, nothing is under way.
const QUIET: Duration = Duration::from_millis(100);

/// What a process has allocated since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// Calls of the allocator that asked for memory, or for more of it.
    pub(crate) times: u64,
    /// Bytes asked for.
    pub(crate) bytes: u64,
    /// Of these, the bytes that were not given back.
    pub(crate) kept: u64,
}

impl Allocated {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        Self {
            times: (stats.allocations + stats.reallocations) as u64,
            bytes: stats.bytes_allocated as u64,
            kept: (stats.bytes_allocated - stats.bytes_deallocated) as u64,
        }
    }
}

/// Is `pgs`, as its `main` is, where the arguments say so.
pub(crate) fn play_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    arguments.find(|argument| VERBS.contains(&&**argument))?;
    Some(match play() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nothing can be done where standard error is gone.
            let _ignored = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn play() -> anyhow::Result<u8> {
    let cli = Cli::try_parse_from(std::env::args_os())?;
    if let Some(done) = command::run_alone(&cli) {
        return Ok(done?);
    }
    command::confine(&cli)?;
    thread::spawn(report);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(privileges::relinquish_or_log)
        .build()?;
    Ok(runtime.block_on(command::run(cli, Printer::for_this_process()))?)
}

/// Until the test that asks is gone; then nobody ends this process.
fn report() {
    privileges::relinquish_or_log();
    let (mut input, mut output) = (std::io::stdin(), std::io::stdout());
    while input.read_exact(&mut [0]).is_ok() {
        let Allocated { times, bytes, kept } = Allocated::now();
        if writeln!(output, "{times} {bytes} {kept}").is_err() {
            break;
        }
    }
    std::process::abort();
}

/// A router that serves. Ended when dropped, and its keeper with it.
pub(crate) struct CountingRouter {
    child: Child,
    asking: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl CountingRouter {
    pub(crate) fn start(stand_in: &StandIn, path: DataPath) -> anyhow::Result<Self> {
        let log = stand_in.run().join("serve.log");
        let mut child = Command::new(std::env::current_exe()?)
            .env("PGS_STATE_DIR", stand_in.state())
            .env("PGS_RUN_DIR", stand_in.run())
            .env_remove("NOTIFY_SOCKET")
            .env("PGS_LOG", "info")
            .args(["serve", "--listen", "127.0.0.1:0", "--drain-seconds", "0"])
            .args([
                "--path",
                if path == DataPath::Kernel {
                    "auto"
                } else {
                    "relay"
                },
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let asking = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut router = Self {
            child,
            asking,
            answers,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let serving = router.until_it_serves(&log)?;
        if !serving.contains(&format!("path=\"{path}\"")) {
            return Skip::because(format!("no kernel path here: {serving}"));
        }
        let address = serving.split("listen=\"").nth(1);
        let address = address.and_then(|rest| rest.split('"').next());
        router.address = address.with_context(|| serving.clone())?.parse()?;
        Ok(router)
    }

    fn until_it_serves(&mut self, log: &PathBuf) -> anyhow::Result<String> {
        eventually("the router serves", LIMIT, || {
            let text = fs::read_to_string(log)?;
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}:\n{text}");
            }
            let line = text.lines().find(|line| line.contains(" serving "));
            Ok(line.map(str::to_owned))
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has allocated, once it allocates no more.
    pub(crate) fn allocated(&mut self) -> anyhow::Result<Allocated> {
        let mut before = self.ask()?;
        eventually("the router allocates no more", LIMIT, || {
            thread::sleep(QUIET);
            let now = self.ask()?;
            let quiet = now == before;
            before = now;
            Ok(quiet.then_some(now))
        })
    }

    fn ask(&mut self) -> anyhow::Result<Allocated> {
        self.asking.write_all(b"?")?;
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "it says nothing");
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers?[..] {
            [times, bytes, kept] => Ok(Allocated { times, bytes, kept }),
            _ => bail!("not three numbers: {line}"),
        }
    }
}

impl Drop for CountingRouter {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        if let Ok(process_id) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(process_id), Signal::SIGTERM).ok();
        }
        wait(&mut self.child, LIMIT).ok();
    }
}
