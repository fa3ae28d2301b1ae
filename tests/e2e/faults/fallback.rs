//! The kernel path cannot be had, for the router or for one session: the relay does it, says why,
//! and the client notices nothing.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs::datapath::kernel::EMBEDDED_OBJECT;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::pattern::lpad;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::router::pgs_binary;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;
use pgs_tests::wire::packed;
use serde_json::Value;

use super::churn::until_nothing_is_left;
use crate::metrics::scrape;

const LIMIT: Duration = Duration::from_secs(30);

/// Less than what is asked of a server that sleeps.
const PROMPT: Duration = Duration::from_secs(4);
const OBJECT_VARIABLE: &str = "PGS_EBPF_OBJECT";

/// What the map of sockets has room for in the program as it is: three for each session.
const SOCKETS_MAX: u32 = 3 << 15;

/// What it has room for in the program of the test: sessions, and their sockets.
const SESSIONS: usize = 4;
const SOCKETS_FEW: u32 = 12;

/// Runs a program without CAP_PERFMON. CAP_SYS_ADMIN stands for each of the others.
pub(super) const BLIND: [&str; 3] = ["setpriv", "--bounding-set", "-sys_admin,-perfmon"];

pub(super) fn require_kernel(stage: &Stage) -> anyhow::Result<()> {
    match stage.path() {
        DataPath::Kernel => Ok(()),
        DataPath::Relay => {
            Skip::on_this_path("what becomes of the kernel path is asked on that path")
        }
    }
}

/// A router with another eBPF object, or started by another program.
pub(super) fn start(
    stage: &Stage,
    name: &str,
    program: &[&str],
    object: Option<&[u8]>,
) -> anyhow::Result<Router> {
    let installation = stage.installation()?;
    let run = installation.scratch(name);
    let file = installation.scratch(&format!("{name}.o"));
    let text = file.to_string_lossy();
    let mut environment = Vec::new();
    if let Some(object) = object {
        fs::write(&file, object)?;
        environment.push((OBJECT_VARIABLE, &*text));
    }
    let state = installation.state_directory();
    Router::start_through(&state, &run, program, &environment, &["--path", "auto"])
}

pub(super) fn log_in(router: &Router, stage: &Stage) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(stage.alpha()?)?;
    Ok(wire)
}

/// Small and large turns in both directions.
pub(super) fn serves(wire: &mut Wire) -> anyhow::Result<()> {
    for (query, answer) in [(0, 10), (500_000, 10), (10, 2_000_000), (0, 10)] {
        let padding = "p".repeat(query);
        let found =
            wire.query_value(&format!("select lpad('7', {answer}, 'x') /* {padding} */"))?;
        ensure!(found == lpad(7, answer, "x"), "{query}, {answer}");
    }
    Ok(())
}

/// Of the tenant's sessions at a router, by path.
fn paths(router: &Router, stage: &Stage) -> anyhow::Result<(Vec<Value>, Vec<Value>)> {
    let sessions = router.sessions(&stage.alpha()?.user)?.into_iter();
    Ok(sessions.partition(|session| session["path"] == "kernel"))
}

/// The object with a map of sockets for [`SESSIONS`] and no more.
fn small_map() -> anyhow::Result<Vec<u8>> {
    // `struct btf_type` of an array without a name, and the `struct btf_array` behind it:
    // `include/uapi/linux/btf.h`. The length of such an array is how the size of a map is written.
    const ARRAY: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    const LENGTH: std::ops::Range<usize> = 20..24;
    let mut object = EMBEDDED_OBJECT.to_vec();
    let found = (0..object.len() - LENGTH.end).filter(|at| {
        let bytes = &object[*at..];
        bytes.starts_with(&ARRAY) && bytes[LENGTH] == SOCKETS_MAX.to_le_bytes()
    });
    let found: Vec<_> = found.collect();
    ensure!(found.len() == 1, "{} maps of {SOCKETS_MAX}", found.len());
    object[found[0] + LENGTH.start..found[0] + LENGTH.end]
        .copy_from_slice(&SOCKETS_FEW.to_le_bytes());
    Ok(object)
}

pub(super) fn full_map(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let router = start(stage, "full", &[], Some(&small_map()?))?;
    ensure!(router.status()?["path"] == "kernel", "{}", router.log());
    let wires: Result<Vec<_>, _> = (0..SESSIONS + 3).map(|_| log_in(&router, stage)).collect();
    let mut wires = wires?;
    for wire in &mut wires {
        serves(wire)?;
    }
    let (kernel, relay) = paths(&router, stage)?;
    ensure!(
        kernel.len() == SESSIONS && relay.len() == 3,
        "{kernel:?} {relay:?}"
    );
    for session in &relay {
        let reason = session["path_reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("SOCKETS"), "{session}");
    }
    // What failed half-way has left nothing behind: as many as before have room.
    drop(wires);
    process::eventually("all are gone", LIMIT, || {
        Ok((router.status()?["sessions"] == 0).then_some(()))
    })?;
    until_nothing_is_left(&router)?;
    let again: Result<Vec<_>, _> = (0..SESSIONS).map(|_| log_in(&router, stage)).collect();
    let again = again?;
    let (kernel, relay) = paths(&router, stage)?;
    ensure!(kernel.len() == again.len() && relay.is_empty(), "{relay:?}");
    Ok(())
}

/// The object with the two verdicts' names exchanged: what is loaded redirects without a look at
/// the room of its target.
fn wrong_verdict() -> anyhow::Result<Vec<u8>> {
    let names: [&[u8]; 2] = [b"pgs_verdict", b"pgs_one_way"];
    let mut object = EMBEDDED_OBJECT.to_vec();
    let mut exchanged = 0;
    for at in 0..object.len() - names[0].len() {
        let place = &mut object[at..at + names[0].len()];
        if let Some(which) = names.iter().position(|name| *name == &*place) {
            place.copy_from_slice(names[1 - which]);
            exchanged += 1;
        }
    }
    ensure!(exchanged >= 2, "{exchanged} names");
    Ok(object)
}

pub(super) fn failed_canary(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let object = wrong_verdict()?;
    let lame = Why {
        said: "canary `withdrawal` failed",
        cause: "canary",
        failed: &["withdrawal"],
    };
    let mute = Why {
        said: "cannot load the eBPF program",
        cause: "not_loaded",
        failed: &[],
    };
    for (name, object, why) in [
        ("lame", &object[..], lame),
        ("mute", b"no object at all", mute),
    ] {
        let router = start(stage, name, &[], Some(object))?;
        is_relayed(stage, &router, &why)?;
        // Whoever wants the kernel path or nothing gets nothing.
        let mut insisting = Command::new(pgs_binary());
        insisting
            .env(
                OBJECT_VARIABLE,
                stage.installation()?.scratch(&format!("{name}.o")),
            )
            .env("PGS_STATE_DIR", stage.installation()?.state_directory())
            .env("PGS_RUN_DIR", stage.installation()?.scratch("insisting"))
            .args(["serve", "--listen", "127.0.0.1:0", "--path", "kernel"]);
        let ended = process::run(&mut insisting, LIMIT)?;
        ensure!(!ended.status.success(), "{name}: it serves: {ended:?}");
        ensure!(ended.stderr.contains(why.said), "{name}: {ended:?}");
    }
    Ok(())
}

/// Why a router relays everything.
struct Why {
    /// Part of the reason.
    said: &'static str,
    /// Its name in the metrics.
    cause: &'static str,
    /// Canaries that failed.
    failed: &'static [&'static str],
}

/// It says why in the log, in `pgs status` and in the metrics, and serves.
fn is_relayed(stage: &Stage, router: &Router, why: &Why) -> anyhow::Result<()> {
    let Why {
        said,
        cause,
        failed,
    } = why;
    let status = router.status()?;
    ensure!(status["path"] == "relay", "{status}");
    let reason = status["path_reason"].as_str().context("no reason")?;
    ensure!(reason.contains(said), "{reason}");
    ensure!(status["path_fallback"] == *cause, "{status}");
    ensure!(router.log().contains(said), "{}", router.log());
    let shown = router.pgs(&["status"])?;
    ensure!(shown.contains(said), "{shown}");
    let samples = scrape(router)?;
    let fallback = samples.get(&format!("pgs_path_fallback{{reason=\"{cause}\"}}"));
    ensure!(fallback == Some(&1.0), "{samples:?}");
    for canary in *failed {
        let passed = samples.get(&format!("pgs_canary_passed{{canary=\"{canary}\"}}"));
        ensure!(passed == Some(&0.0), "{canary}: {samples:?}");
        let line = shown.lines().find(|line| line.starts_with("canaries "));
        let line = line.with_context(|| shown.clone())?;
        ensure!(line.contains(" failed, in "), "{line}");
        ensure!(line.contains(&format!("{canary}: ")), "{line}");
        let log = router.log();
        let line = log.lines().find(|line| line.contains("canaries done"));
        ensure!(line.is_some_and(|line| line.contains(canary)), "{log}");
    }
    serves(&mut log_in(router, stage)?)
}

/// The kernel path without a look at the target: results by the kernel, queries by the router, and
/// the session's end with it.
fn is_one_way(stage: &Stage, router: &Router) -> anyhow::Result<()> {
    let status = router.status()?;
    ensure!(status["path"] == "kernel", "{status}");
    ensure!(status["path_one_way"].is_string(), "{status}");
    let shown = router.pgs(&["status"])?;
    let said = "\n          from backends to clients only: ";
    ensure!(shown.contains(said), "{shown}");
    let samples = scrape(router)?;
    ensure!(samples.get("pgs_path_one_way") == Some(&1.0), "{samples:?}");
    let log = router.log();
    ensure!(log.contains("only results go through the kernel"), "{log}");
    let mut wire = log_in(router, stage)?;
    serves(&mut wire)?;
    let (kernel, relay) = paths(router, stage)?;
    ensure!(kernel.len() == 1 && relay.is_empty(), "{relay:?}");
    router.signal(Signal::SIGKILL)?;
    let more = wire.receive_to_end()?;
    ensure!(more.is_empty(), "{more:?}");
    // Its keeper would wait for the next one.
    let keeper = status["survival"]["process_id"].as_i64();
    let keeper = i32::try_from(keeper.context("no keeper")?)?;
    Ok(kill(Pid::from_raw(keeper), Signal::SIGTERM)?)
}

pub(super) fn missing_capabilities(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let without = |names| ["setpriv", "--bounding-set", names];
    is_one_way(stage, &start(stage, "blind", &BLIND, None)?).context("without CAP_PERFMON")?;
    let why = Why {
        said: "Operation not permitted",
        cause: "not_permitted",
        failed: &[],
    };
    let powerless = without("-sys_admin,-perfmon,-bpf");
    let router = start(stage, "powerless", &powerless, None)?;
    is_relayed(stage, &router, &why).context("without CAP_BPF")?;
    let netless = without("-sys_admin,-net_admin");
    let router = start(stage, "netless", &netless, None)?;
    is_relayed(stage, &router, &why).context("without CAP_NET_ADMIN")?;
    // Other maps can be made: it is the sockhashes that need it.
    let sockhashes = ["`SOURCES`", "`SOCKETS`", "`PROBES`"];
    let status = router.status()?;
    let reason = status["path_reason"].as_str().unwrap_or_default();
    ensure!(
        sockhashes.iter().any(|map| reason.contains(map)),
        "{reason}"
    );
    Ok(())
}

/// A kernel that does not say how its structures are laid out: to this router, from which it is
/// hidden.
pub(super) fn missing_type_information(stage: &Stage) -> anyhow::Result<()> {
    require_kernel(stage)?;
    let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    let hidden = ["unshare", "--mount", "sh", "-c", hide, "sh"];
    is_one_way(stage, &start(stage, "untyped", &hidden, None)?)
}

/// Long enough to be looked at.
const SLEEP: &str = "select pg_sleep(5)";

/// Waits until the one session there is has a path: not the kernel's, which takes no such socket.
fn until_relayed(stage: &Stage, login: &Login) -> anyhow::Result<()> {
    let mut last = Vec::new();
    let relayed = process::eventually("its session is relayed", PROMPT, || {
        last = stage.router()?.sessions(&login.user)?;
        let relayed = last.len() == 1 && last[0]["path"] == "relay";
        let reason = last.first().map(|session| session["path_reason"].clone());
        let says_why = stage.path() == DataPath::Relay || reason.is_some_and(|why| why.is_string());
        Ok((relayed && says_why).then_some(()))
    });
    relayed.with_context(|| format!("{last:?}"))
}

/// It has sent all that it ever will before it is let in, and says so: its session is handed over
/// with a socket in CLOSE_WAIT.
pub(super) fn ended_client(stage: &Stage) -> anyhow::Result<()> {
    let login = stage.alpha()?;
    let queries: [&[&str]; 3] = [
        &[SLEEP],
        &["select 'all that there is'"],
        &[
            "select 'first'",
            "select repeat('x', 5000000)",
            "select 'last'",
        ],
    ];
    for queries in queries {
        let mut wire = stage.connect()?;
        wire.send(&startup_packet(PROTOCOL_3_0, &[("user", &login.user)]))?;
        let mut tail = Vec::new();
        for sql in queries {
            tail.extend(packed(b'Q', &[sql.as_bytes(), b"\0"].concat()));
        }
        let greeting = wire.authenticate_and_end(&login.password, &tail)?;
        ensure!(greeting.refused().is_none(), "{greeting:?}");
        if queries == [SLEEP] {
            until_relayed(stage, login)?;
            wire.until_ready()?;
            continue;
        }
        for sql in queries {
            let answered = wire.until_ready().with_context(|| (*sql).to_owned())?;
            let row = answered.iter().find(|message| message.kind == b'D');
            let bytes = row.with_context(|| format!("{sql}: no row"))?.columns()?[0].len();
            let expected = if sql.contains("repeat") {
                5_000_000
            } else {
                sql.len() - 9
            };
            ensure!(bytes == expected, "{sql}: {bytes} bytes");
        }
        ensure!(wire.receive_to_end()?.is_empty(), "more than was asked for");
    }
    Ok(())
}
