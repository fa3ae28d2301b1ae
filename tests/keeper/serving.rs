//! The real `pgs serve`: killed, taken over, without a keeper. This process plays its tenant.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs::config::directories::Directories;
use pgs::tenant::id::TenantId;
use pgs::tenant::record::Access;
use pgs::tenant::record::Blueprint;
use pgs::tenant::record::VolumeFate;
use pgs::tenant::registry::Registry;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process::Finished;
use pgs_tests::process::eventually;
use pgs_tests::process::run;
use pgs_tests::process::wait;
use pgs_tests::router::pgs_binary;
use pgs_tests::wire::Wire;
use serde_json::Value;

use crate::Scenario;
use crate::ground::Ground;
use crate::ground::LIMIT;
use crate::ground::QUIET;
use crate::ground::is_alive;
use crate::manager::Manager;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "a_killed_router_keeps_the_port",
        a_killed_router_keeps_the_port,
    ),
    (
        "a_second_router_is_refused_with_the_way_out",
        a_second_router_is_refused,
    ),
    (
        "a_new_router_takes_over_under_load",
        a_new_router_takes_over_under_load,
    ),
    (
        "a_router_that_ends_refuses_at_once",
        a_router_that_ends_refuses_at_once,
    ),
    (
        "a_unit_that_is_restarted_keeps_the_port",
        a_unit_that_is_restarted_keeps_the_port,
    ),
    ("a_router_without_a_keeper", a_router_without_a_keeper),
    (
        "a_router_whose_keeper_is_killed",
        a_router_whose_keeper_is_killed,
    ),
];

/// Until a client has its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// A state directory with one tenant, played by threads of this process, and an address.
struct Stage {
    ground: Ground,
    address: SocketAddr,
}

impl Stage {
    fn new() -> anyhow::Result<Self> {
        let ground = Ground::new(Duration::ZERO)?;
        let stage = Self {
            address: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            ground,
        };
        let directories = Directories::new(stage.state(), stage.ground.run());
        let registry = Registry::open(&directories)?;
        let acme = TenantId::parse("acme")?;
        let blueprint = Blueprint {
            image: "none".to_owned(),
            memory_bytes: 1,
            cpu_millis: 1,
            network: None,
        };
        registry.begin_create(&acme, &blueprint, VolumeFate::Keep)?;
        registry.finish_create(&acme, Access::Enabled)?;
        let directory = directories.socket_directory(&acme);
        fs::create_dir_all(&directory)?;
        let listener = UnixListener::bind(directory.join(".s.PGSQL.5432"))?;
        std::thread::spawn(move || {
            for backend in listener.incoming().flatten() {
                std::thread::spawn(move || play_backend(backend));
            }
        });
        Ok(stage)
    }

    fn state(&self) -> PathBuf {
        self.ground.run().join("state")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(pgs_binary());
        command
            .env("PGS_STATE_DIR", self.state())
            .env("PGS_RUN_DIR", self.ground.run())
            .env_remove("NOTIFY_SOCKET")
            .args(arguments);
        command
    }

    fn serve_command(&self, arguments: &[&str]) -> Command {
        let address = self.address.to_string();
        let mut command = self.command(&["serve", "--path", "relay", "--listen", &address]);
        command.args(arguments);
        command
    }

    /// A router that serves.
    fn serve(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Serving> {
        self.serve_by(&mut self.serve_command(arguments), name)
    }

    fn serve_by(&self, command: &mut Command, name: &str) -> anyhow::Result<Serving> {
        let log = self.ground.run().join(name);
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()?;
        let mut serving = Serving { child, log };
        eventually("the router serves", LIMIT, || {
            let ended = serving.child.try_wait()?;
            ensure!(ended.is_none(), "it ended: {ended:?}\n{}", serving.log());
            Ok(serving.log().contains("serving").then_some(()))
        })?;
        Ok(serving)
    }

    /// A client that is logged in.
    fn session(&self) -> anyhow::Result<Wire> {
        let mut wire = Wire::connect_tcp(self.address)?;
        wire.set_read_limit(ANSWER_LIMIT)?;
        let parameters = [("user", "acme"), ("database", "acme")];
        wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
        wire.until_ready().context("logging in")?;
        Ok(wire)
    }

    /// What a router says of itself, asked without `pgs status`, which needs Docker.
    fn status(&self) -> anyhow::Result<Value> {
        let mut socket = UnixStream::connect(self.ground.run().join("admin.sock"))?;
        socket.write_all(b"{\"request\":\"status\"}\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

/// Lets everybody in and sends back what comes.
fn play_backend(mut backend: UnixStream) {
    let echo = || -> std::io::Result<()> {
        let mut length = [0; 4];
        backend.read_exact(&mut length)?;
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        backend.read_exact(&mut rest)?;
        // AuthenticationOk, ReadyForQuery.
        backend.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")?;
        let mut bytes = [0; 4_096];
        loop {
            match backend.read(&mut bytes)? {
                0 => return Ok(()),
                count => backend.write_all(&bytes[..count])?,
            }
        }
    };
    // A client that is gone ends it, which is what most tests do.
    let mut echo = echo;
    echo().ok();
}

fn echoes(wire: &mut Wire, text: &[u8]) -> anyhow::Result<()> {
    wire.send(text)?;
    let answer = wire.receive(text.len())?;
    ensure!(answer == text, "{answer:?}");
    Ok(())
}

/// A running `pgs serve`. Killed when dropped.
struct Serving {
    child: Child,
    log: PathBuf,
}

impl Serving {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            signal,
        )?)
    }

    fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn until_ended(&mut self) -> anyhow::Result<()> {
        let status = wait(&mut self.child, LIMIT)?;
        ensure!(
            status.is_some_and(|one| one.success()),
            "{status:?}\n{}",
            self.log()
        );
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Ends it in order, and looks for what is left.
fn ends_and_leaves_nothing(stage: &Stage, mut router: Serving) -> anyhow::Result<()> {
    let keeper = stage.ground.report()?.keeper;
    router.signal(Signal::SIGTERM)?;
    router.until_ended()?;
    stage.ground.until_gone(keeper)?;
    for gone in ["admin.sock", "keeper.sock"] {
        ensure!(!stage.ground.run().join(gone).exists(), "{gone} stays");
    }
    Ok(())
}

fn a_killed_router_keeps_the_port() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve("first.log", &[])?;
    let keeper = stage.ground.report()?.keeper;
    let survival = stage.status()?["survival"].clone();
    ensure!(
        survival["kept_by"] == "keeper" && survival["process_id"] == keeper,
        "{survival}"
    );
    first.kill()?;
    ensure!(stage.ground.report()?.router.is_none());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| stage.session().and_then(|mut one| echoes(&mut one, b"1")));
        std::thread::sleep(QUIET);
        ensure!(!waiting.is_finished(), "nobody can have answered");
        let second = stage.serve("second.log", &[])?;
        waiting.join().ok().context("a panic")??;
        ensure!(stage.ground.report()?.keeper == keeper);
        ends_and_leaves_nothing(&stage, second)
    })
}

fn refused(outcome: &Finished, words: &[&str]) -> anyhow::Result<()> {
    ensure!(outcome.status.code() == Some(6), "{outcome:?}");
    for word in words {
        ensure!(outcome.stderr.contains(word), "no {word}: {outcome:?}");
    }
    Ok(())
}

fn a_second_router_is_refused() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve("first.log", &[])?;
    let second = run(&mut stage.serve_command(&[]), LIMIT)?;
    refused(
        &second,
        &["another `pgs serve` is running", "hint: `--take-over`"],
    )?;
    echoes(&mut stage.session()?, b"still here")?;
    ends_and_leaves_nothing(&stage, first)
}

fn a_new_router_takes_over_under_load() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve("first.log", &[])?;
    let keeper = stage.ground.report()?.keeper;
    let mut session = stage.session()?;
    let done = AtomicBool::new(false);
    let (second, visits) = std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| visit_until(&stage, &done)))
            .collect();
        std::thread::sleep(QUIET);
        let second = stage.serve("second.log", &["--take-over"]);
        std::thread::sleep(QUIET);
        done.store(true, Relaxed);
        let mut visits = 0;
        for visitor in visitors {
            visits += visitor.join().ok().context("a panic")??;
        }
        anyhow::Ok((second?, visits))
    })?;
    ensure!(visits > 4, "{visits} visits are no load");
    ensure!(
        second
            .log()
            .contains("waiting for the other router to let go")
    );
    ensure!(stage.ground.report()?.router == Some(second.child.id()));
    ensure!(stage.ground.report()?.keeper == keeper);
    // The first router goes on with what it has, and ends with it.
    echoes(&mut session, b"still relayed")?;
    ensure!(is_alive(first.child.id()), "{}", first.log());
    drop(session);
    first.until_ended()?;
    echoes(&mut stage.session()?, b"the second router's")?;
    ensure!(stage.status()?["pid"] == second.child.id());
    ends_and_leaves_nothing(&stage, second)
}

/// Logs in again and again; how often. Every time has to succeed.
fn visit_until(stage: &Stage, done: &AtomicBool) -> anyhow::Result<usize> {
    let mut visits = 0;
    while !done.load(Relaxed) {
        echoes(&mut stage.session()?, b"a short visit")?;
        visits += 1;
    }
    Ok(visits)
}

fn a_router_that_ends_refuses_at_once() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let router = stage.serve("first.log", &[])?;
    let mut session = stage.session()?;
    let keeper = stage.ground.report()?.keeper;
    router.signal(Signal::SIGTERM)?;
    eventually("the port is closed", LIMIT, || {
        Ok(TcpStream::connect(stage.address).err().map(drop))
    })?;
    echoes(&mut session, b"it waits for this one")?;
    ensure!(stage.ground.report()?.globals == 0);
    drop(session);
    let mut router = router;
    router.until_ended()?;
    stage.ground.until_gone(keeper)
}

fn a_unit_that_is_restarted_keeps_the_port() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let manager = Manager::listen(&stage.ground)?;
    let mut unit = stage.serve_command(&[]);
    unit.env("NOTIFY_SOCKET", stage.ground.run().join("notify"));
    unit.env("FDSTORE", "100");
    let mut first = stage.serve_by(&mut unit, "first.log")?;
    ensure!(stage.status()?["survival"]["kept_by"] == "systemd");
    first.signal(Signal::SIGTERM)?;
    first.until_ended()?;
    ensure!(
        manager.names() == ["pgs.global.listener.0"],
        "{:?}",
        manager.names()
    );
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| stage.session().and_then(|mut one| echoes(&mut one, b"1")));
        std::thread::sleep(QUIET);
        ensure!(!waiting.is_finished(), "nobody can have answered");
        let (mut unit, passed) = manager.command(&unit)?;
        let mut second = stage.serve_by(&mut unit, "second.log")?;
        drop(passed);
        waiting.join().ok().context("a panic")??;
        ensure!(
            !stage.ground.run().join("keeper.sock").exists(),
            "a keeper beside it"
        );
        second.signal(Signal::SIGTERM)?;
        second.until_ended()
    })
}

fn a_router_without_a_keeper() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let mut first = stage.serve("first.log", &["--keeper", "off"])?;
    ensure!(!stage.ground.run().join("keeper.sock").exists());
    ensure!(stage.status()?["survival"]["kept_by"] == "nothing");
    let second = run(&mut stage.serve_command(&["--take-over"]), LIMIT)?;
    refused(&second, &["has no keeper", "hint: "])?;
    echoes(&mut stage.session()?, b"still here")?;
    first.signal(Signal::SIGTERM)?;
    first.until_ended()
}

fn a_router_whose_keeper_is_killed() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let first = stage.serve("first.log", &[])?;
    let mut session = stage.session()?;
    let keeper = stage.ground.report()?.keeper;
    kill(Pid::from_raw(i32::try_from(keeper)?), Signal::SIGKILL)?;
    eventually("there is a new keeper", LIMIT, || {
        let found = pgs::keeper::inquiry::inquire(stage.ground.run())?;
        Ok(found
            .filter(|new| new.keeper != keeper && new.globals == 1)
            .map(drop))
    })?;
    ensure!(
        first.log().contains("the keeper is gone"),
        "{}",
        first.log()
    );
    ensure!(stage.status()?["survival"]["reason"].is_null());
    echoes(&mut session, b"undisturbed")?;
    drop(session);
    // What the new keeper has is as good.
    first.kill()?;
    let second = stage.serve("second.log", &[])?;
    echoes(&mut stage.session()?, b"again")?;
    ends_and_leaves_nothing(&stage, second)
}
