//! Start-up canaries: small experiments on private sockets that prove on *this* kernel what the
//! kernel path relies on. The kernel's version proves nothing.

mod duplex;
mod stage;
mod withdrawal;

use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use super::direction::Direction;
use super::kernel::KernelAccess;
use super::kernel::KernelPath;
use super::kernel::Refused;
use super::kernel::Unreceived;
use super::kernel::Ways;
use crate::config::limits::CANARY_DEADLINE;
use crate::config::limits::CANARY_POLL_INTERVAL;
use stage::Stage;

/// What one canary found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Short name.
    pub name: &'static str,
    /// Whether the kernel behaves as needed.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

/// What all of them found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// In the order in which they were run.
    pub findings: Vec<Finding>,
    /// All of them together.
    pub took: Duration,
}

impl Results {
    /// Those that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.passed)
    }

    /// How long they took, in whole milliseconds.
    pub fn milliseconds(&self) -> u64 {
        u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A canary: what it saw, or what went wrong.
type Canary = fn(&mut KernelAccess) -> Result<String, String>;

/// In the order in which they are run; the first that fails decides.
const CANARIES: [(&str, Canary); 4] = [
    ("redirect", redirect),
    ("queued-before", queued_before),
    ("missing-target", missing_target),
    ("end-of-stream", end_of_stream),
];

/// Of both directions at once; it runs last, because it takes the thread's access with it.
const DUPLEX: &str = "bounded-and-exact";

/// Runs all canaries, and says in the log what they found.
pub(super) fn run(kernel: &KernelPath) -> Results {
    let begun = Instant::now();
    let findings = run_each(kernel);
    let results = Results {
        findings,
        took: begun.elapsed(),
    };
    let failed: Vec<_> = results.failed().map(|finding| finding.name).collect();
    tracing::info!(
        passed = results.findings.len() - failed.len(),
        failed = (!failed.is_empty()).then(|| failed.join(" ")),
        milliseconds = results.milliseconds(),
        "canaries done"
    );
    results
}

fn run_each(kernel: &KernelPath) -> Vec<Finding> {
    let mut access = match kernel.access(0, 1) {
        Ok(access) => access,
        Err(error) => {
            return vec![Finding {
                name: "maps",
                passed: false,
                detail: error.to_string(),
            }];
        }
    };
    let mut findings: Vec<_> = CANARIES
        .into_iter()
        .map(|(name, canary)| finding(name, canary(&mut access)))
        .collect();
    if *kernel.ways() == Ways::Both {
        findings.push(finding("both-ways", both_ways(&mut access)));
        findings.push(finding("withdrawal", withdrawal::run(&mut access)));
    }
    findings.push(finding(DUPLEX, duplex::run(kernel, access)));
    findings
}

fn finding(name: &'static str, seen: Result<String, String>) -> Finding {
    let (passed, detail) = match seen {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    tracing::debug!(name, passed, detail, "canary");
    Finding {
        name,
        passed,
        detail,
    }
}

/// What the backend sends reaches the client although the router reads nothing.
fn redirect(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    let enrolment = stage.enrol(kernel)?;
    for message in [&b"first"[..], b"second"] {
        stage.backend.write_all(message).map_err(named("send"))?;
        stage.expect(message)?;
    }
    let redirected = kernel.end(&enrolment).to_client;
    if redirected == 11 {
        Ok("11 of 11 bytes by the program".into())
    } else {
        Err(format!("{redirected} of 11 bytes by the program"))
    }
}

/// Bytes that were queued before the enrolment are noticed, and nothing of them is lost.
fn queued_before(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    stage.backend.write_all(b"early").map_err(named("send"))?;
    match kernel.enrol(&stage.router_client, &stage.router_backend, 0) {
        Err(Refused::Contended) => {}
        Err(Refused::Failed(why)) => return Err(why),
        Ok(_) => return Err("queued bytes were overlooked".into()),
    }
    let mut early = [0; 16];
    let count = stage
        .router_backend
        .read(&mut early)
        .map_err(named("recv by the router"))?;
    stage
        .router_client
        .write_all(&early[..count])
        .map_err(named("send by the router"))?;
    let enrolment = stage.enrol(kernel)?;
    stage.backend.write_all(b"late").map_err(named("send"))?;
    stage.expect(b"earlylate")?;
    kernel.end(&enrolment);
    Ok("queued bytes are seen and keep their place".into())
}

/// Without a target the bytes come to the router instead of being dropped.
fn missing_target(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    let enrolment = stage.enrol(kernel)?;
    kernel.lose_target(&enrolment);
    stage.backend.write_all(b"astray").map_err(named("send"))?;
    let mut received = [0; 16];
    let unreceived = kernel.unreceived(&enrolment, Direction::ToClient);
    let count = stage.receive_diverted(&enrolment, unreceived, &mut received)?;
    kernel.end(&enrolment);
    match (&received[..count], unreceived) {
        (b"astray", Unreceived::AtSource(6) | Unreceived::Aside(6)) => {
            Ok("come to the router".into())
        }
        (other, counted) => Err(format!("{} bytes came, {counted:?} counted", other.len())),
    }
}

/// What the client had sent before the enrolment comes to the router, and what it sends afterwards
/// goes to the backend; an end of stream is seen and does not harm.
fn both_ways(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    stage.client.write_all(b"before").map_err(named("send"))?;
    let mut enrolment = stage.enrol(kernel)?;
    let direction = Direction::ToBackend;
    let mut received = [0; 16];
    let count = stage
        .router_client
        .read(&mut received)
        .map_err(named("recv by the router"))?;
    let diverted = kernel.unreceived(&enrolment, direction);
    if &received[..count] != b"before" || diverted != Unreceived::AtSource(6) {
        return Err(format!(
            "{count} of 6 bytes came to the router, {diverted:?} counted"
        ));
    }
    kernel.record(&mut enrolment, direction, 6, true);
    kernel.open(&enrolment);
    stage.client.write_all(b"after").map_err(named("send"))?;
    stage.expect_at_backend(b"after")?;
    stage
        .client
        .shutdown(std::net::Shutdown::Write)
        .map_err(named("shutdown"))?;
    stage.expect_end(CANARY_DEADLINE)?;
    stage
        .router_backend
        .write_all(b"!")
        .map_err(named("send by the router"))?;
    stage.expect_at_backend(b"!")?;
    match kernel.end(&enrolment).to_backend {
        5 => Ok("5 of 5 bytes to the backend by the program".into()),
        other => Err(format!("{other} of 5 bytes to the backend by the program")),
    }
}

/// After the backend closes, the flow is found drained, and the client's connection is unharmed.
fn end_of_stream(kernel: &mut KernelAccess) -> Result<String, String> {
    let mut stage = Stage::set()?;
    let mut enrolment = stage.enrol(kernel)?;
    stage
        .backend
        .write_all(b"last words")
        .map_err(named("send"))?;
    drop(std::mem::replace(
        &mut stage.backend,
        UnixStream::pair().map_err(named("socketpair"))?.0,
    ));
    let deadline = Instant::now() + CANARY_DEADLINE;
    while !kernel
        .is_drained(&mut enrolment, Direction::ToClient, &stage.router_client)
        .map_err(named("the question whether it is drained"))?
    {
        if Instant::now() > deadline {
            return Err("the flow is never found drained".into());
        }
        std::thread::sleep(CANARY_POLL_INTERVAL);
    }
    kernel.end(&enrolment);
    stage
        .router_client
        .write_all(b"!")
        .map_err(named("send by the router"))?;
    drop(stage.router_client);
    let mut received = Vec::new();
    stage
        .client
        .read_to_end(&mut received)
        .map_err(named("recv by the client"))?;
    if received == b"last words!" {
        Ok("drained, then closed in order".into())
    } else {
        Err(format!("{} of 11 bytes arrived", received.len()))
    }
}

/// Which call failed, and why.
fn named<E: std::fmt::Display>(call: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{call}: {error}")
}
