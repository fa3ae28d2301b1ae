//! The real `pgs serve` and a successor that is killed at each step of taking over: whoever has the
//! sessions then goes on with them, and the next one that comes takes over.
//!
//! Where a successor is it says in its log, line by line. It writes into a pipe that takes one line
//! at a time, so that it cannot be more than two lines further than the one that is read here.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read as _;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;
use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;
use nix::unistd::pipe2;
use pgs_tests::process::eventually;
use pgs_tests::wire::Wire;

use crate::Scenario;
use crate::ground::LIMIT;
use crate::handing_over::ends;
use crate::handing_over::large_turn;
use crate::handing_over::listed;
use crate::stage::Serving;
use crate::stage::Stage;
use crate::stage::echoes;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[(
    "a_successor_that_is_killed_at_each_step",
    a_successor_that_is_killed_at_each_step,
)];

/// What a successor says when it has done a step, in this order.
const STEPS: [&str; 10] = [
    "canaries done",
    "waiting for the other router to let go",
    "let in by the keeper",
    "the run directory is this router's",
    "listening",
    "the workers run",
    "the maps are kept",
    "gone on with",
    "took over from the last router",
    "serving",
];

/// Sessions: one that works, and others beside it.
const SESSIONS: u32 = 3;

/// The smallest pipe there is: a page, which one packet fills whatever its size.
const PIPE_BYTES: i32 = 4096;

const POLL: Duration = Duration::from_millis(1);

fn a_successor_that_is_killed_at_each_step() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut router = stage.serve_in_kernel("first.log", &[])?;
    let (mut wire, key) = stage.session_with_key()?;
    let others: anyhow::Result<Vec<_>> = (1..SESSIONS).map(|_| stage.session()).collect();
    let mut others = others?;
    for wire in others.iter_mut().chain([&mut wire]) {
        echoes(wire, b"before")?;
    }
    stage.ground.until_slots(SESSIONS)?;
    for (number, step) in STEPS.into_iter().enumerate() {
        let next = killed_at(&stage, router, &mut wire, step, &format!("{number}.log"));
        router = next.with_context(|| format!("killed at `{step}`"))?;
    }
    ensure!(stage.cancel(&key)?.len() == 1);
    for wire in &mut others {
        echoes(wire, b"after all of them")?;
        large_turn(wire)?;
    }
    drop((wire, others));
    stage.ground.until_slots(0)?;
    ends(router)
}

/// Kills a successor of this router there; the router that then takes over, with all sessions.
fn killed_at(
    stage: &Stage,
    mut router: Serving,
    wire: &mut Wire,
    step: &str,
    log: &str,
) -> anyhow::Result<Serving> {
    let before = stage.sessions()?;
    ensure!(before.len() == SESSIONS as usize, "{before:?}");
    is_judged(stage, wire)?;
    let mut successor = Successor::begin(stage)?;
    successor.read_to(step)?;
    let said = std::mem::take(&mut successor.read);
    drop(successor);
    echoes(wire, b"whoever has it")
        .with_context(|| format!("the successor said:\n{said}\nthe router:\n{}", router.log()))?;
    let let_go = eventually("the router has settled", LIMIT, || {
        if router.child.try_wait()?.is_some() {
            return Ok(Some(true));
        }
        let times = |what| router.log().matches(what).count();
        let settled = times("another router takes over") == times("going on");
        Ok(settled.then_some(false))
    })?;
    if !let_go {
        large_turn(wire)?;
    }
    let next = stage.serve_in_kernel(log, &["--take-over"])?;
    router.until_ended()?;
    for session in &before {
        let after = listed(stage, &session["id"])?.context("one is not listed")?;
        ensure!(
            after["path"] == "kernel" && after["path_reason"].is_null(),
            "{after}"
        );
    }
    ensure!(stage.ground.report()?.slots == SESSIONS);
    echoes(wire, b"the next one's")?;
    large_turn(wire)?;
    Ok(next)
}

/// Waits until the kernel moves both the session's directions. A backend whose large turns had
/// pauses is out of the verdict for a second after them; if nobody serves then, its session waits.
fn is_judged(stage: &Stage, wire: &mut Wire) -> anyhow::Result<()> {
    const WORD: &[u8] = b"by the kernel?";
    let in_kernel = || -> anyhow::Result<u64> {
        let sessions = stage.sessions()?;
        let bytes = sessions.iter().map(|one| one["bytes_in_kernel"].as_u64());
        bytes.sum::<Option<u64>>().context("no bytes in the kernel")
    };
    eventually("its backend is judged again", LIMIT, || {
        let before = in_kernel()?;
        echoes(wire, WORD)?;
        Ok((in_kernel()? - before == 2 * WORD.len() as u64).then_some(()))
    })
}

/// A router that takes over as fast as its log is read. Killed when dropped.
struct Successor {
    child: Child,
    log: File,
    read: String,
}

impl Successor {
    fn begin(stage: &Stage) -> anyhow::Result<Self> {
        // Each write is a packet of its own, and the next one waits until it is read.
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
        fcntl(&ours, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES))?;
        // Its own end alone: theirs is another open file.
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut command = stage.serve_command_in_kernel(&["--take-over"]);
        let child = command
            .env("PGS_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(theirs)
            .spawn()?;
        Ok(Self {
            child,
            log: File::from(ours),
            read: String::new(),
        })
    }

    /// Reads its log up to a line with this in it.
    fn read_to(&mut self, step: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + LIMIT;
        let mut packet = [0; PIPE_BYTES as usize];
        loop {
            match self.log.read(&mut packet) {
                Ok(0) => return Err(anyhow!("it ended before:\n{}", self.read)),
                Ok(count) => {
                    let line = String::from_utf8_lossy(&packet[..count]);
                    self.read += &line;
                    if line.contains(step) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(POLL),
                Err(error) => return Err(error.into()),
            }
            ensure!(
                Instant::now() < deadline,
                "not within {LIMIT:?}:\n{}",
                self.read
            );
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
