//! Thousands of sessions on which nothing happens, on a stand-in's server.

use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use pgs_tests::belongings::descriptors;
use pgs_tests::length::Length;
use pgs_tests::memory::MemoryUse;
use pgs_tests::process;
use pgs_tests::processor::processor_seconds;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::stand_in::StandIn;

use super::say;

/// As many as pgs admits, unless told otherwise.
const SESSIONS: usize = 9_000;

/// Resident memory of the router that one of them may cost.
const SESSION_BYTES_MAX: u64 = 4 * 1024;

/// What the router may use of one processor's time while nothing happens.
const BUSY_MAX: f64 = 0.01;

/// How long after the last login its measuring begins.
const SETTLES: Duration = Duration::from_secs(1);

/// For connections that have not said what they want; as many places are for logins that wait.
const ARRIVALS_MAX: u64 = 64;

/// Descriptors that a router keeps back beside those of sessions; a test has fewer.
const DESCRIPTORS_BESIDE: u64 = 512 + 2 * ARRIVALS_MAX;

/// Of one session, in whichever process has more: three in a router, or two where it relays; and
/// two in this process, which plays client and server.
fn descriptors_each(path: DataPath) -> u64 {
    match path {
        DataPath::Kernel => 3,
        DataPath::Relay => 2,
    }
}

/// Sessions before the measured ones: what all share is there afterwards.
const FIRST: usize = 50;

const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn idle_sessions(stage: &Stage) -> anyhow::Result<()> {
    let length = Length::of_this_run()?;
    let wanted = length.pick(1_000, SESSIONS);
    let each = descriptors_each(stage.path());
    let limit = raise_descriptor_limit(wanted as u64 * each + DESCRIPTORS_BESIDE)?;
    let possible = limit.saturating_sub(DESCRIPTORS_BESIDE) / each;
    let possible = usize::try_from(possible)?;
    let count = wanted.min(possible);
    if count < wanted {
        say(&format!(
            "idle sessions, {}: {count} instead of {wanted}: the limit on open files is {limit}",
            stage.path()
        ));
    }
    let stand_in = StandIn::start()?;
    let arguments = ["--path", stage.path().as_str()];
    let configuration = stand_in.run().join("pgs.toml");
    std::fs::write(
        &configuration,
        format!(
            "[limits]\narrivals_max = {ARRIVALS_MAX}\n[tenant_defaults]\nconnections_max = 10000\n"
        ),
    )?;
    let file = configuration.to_string_lossy();
    let arguments = [&arguments[..], &["--config", &file]].concat();
    let router = Router::start_with(&stand_in.state(), &stand_in.run(), &arguments)?;
    let _first = log_in(&stand_in, &router, FIRST)?;
    let process_id = router.process_id();
    let before = MemoryUse::now(process_id)?.resident;
    let begun = Instant::now();
    let sessions = log_in(&stand_in, &router, count - FIRST)?;
    let took = begun.elapsed();
    // A client is let in a moment before the kernel has its session.
    let kernel = match stage.path() {
        DataPath::Kernel => count,
        DataPath::Relay => 0,
    };
    let mut last = String::new();
    let all_there = process::eventually("all of them are there", LIMIT, || {
        let status = router.status()?;
        last = format!("{} and {}", status["sessions"], status["sessions_kernel"]);
        let all = status["sessions"] == count && status["sessions_kernel"] == kernel;
        Ok(all.then_some(()))
    });
    all_there.with_context(|| last)?;
    let grown = MemoryUse::now(process_id)?.resident.saturating_sub(before);
    let each = grown / sessions.len() as u64;
    // What logins leave to be done is no cost of idle sessions.
    thread::sleep(SETTLES);
    let rest = length.pick(Duration::from_secs(3), Duration::from_secs(20));
    let busy = processor_seconds(process_id)?;
    thread::sleep(rest);
    let busy = (processor_seconds(process_id)? - busy) / rest.as_secs_f64();
    say(&format!(
        "idle sessions, {}: {count} sessions, {each} bytes of resident memory and {:.1} \
         descriptors each; {:.0} logins/s; {:.2} % of a processor while idle",
        stage.path(),
        descriptors(process_id)? as f64 / count as f64,
        sessions.len() as f64 / took.as_secs_f64(),
        busy * 100.0,
    ));
    ensure!(each <= SESSION_BYTES_MAX, "{each} bytes a session");
    ensure!(busy <= BUSY_MAX, "{busy} of a processor for nothing");
    Ok(())
}

/// Raises the limit on open files of this process and of the routers that it starts, as far as it
/// goes: beyond the hard limit with CAP_SYS_RESOURCE alone. What it is then.
fn raise_descriptor_limit(wanted: u64) -> anyhow::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if wanted <= soft {
        return Ok(soft);
    }
    let set = |limit| setrlimit(Resource::RLIMIT_NOFILE, limit, hard.max(limit)).map(|()| limit);
    Ok(set(wanted).or_else(|_| set(hard))?)
}

fn log_in(stand_in: &StandIn, router: &Router, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    // From many addresses, as they would come: there are bounds for each.
    let sources = (1..=250).cycle().map(|last| Ipv4Addr::new(127, 0, 9, last));
    let sources = (0..count).zip(sources);
    let sessions = sources.map(|(number, source)| {
        let session = stand_in.log_in(router.address(), source);
        session.with_context(|| format!("session {number}"))
    });
    sessions.collect()
}
