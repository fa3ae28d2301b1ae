//! The real `pgs serve` on a tenant that this process plays.

use crate::ground::Ground;
use crate::ground::LIMIT;
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
use pgs_tests::login::BackendKey;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process::eventually;
use pgs_tests::process::wait;
use pgs_tests::router::pgs_binary;
use pgs_tests::skip::Skip;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;
use serde_json::Value;
use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

/// Until a client has its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// A state directory with one tenant, played by threads of this process, and an address.
pub(crate) struct Stage {
    pub(crate) ground: Ground,
    pub(crate) address: SocketAddr,
    cancelled: Cancelled,
}

/// The keys of the sessions that the tenant's server was asked to cancel.
type Cancelled = Arc<Mutex<Vec<Vec<u8>>>>;

impl Stage {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let ground = Ground::new(Duration::ZERO)?;
        let stage = Self {
            address: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            ground,
            cancelled: Cancelled::default(),
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
        let cancelled = Arc::clone(&stage.cancelled);
        std::thread::spawn(move || {
            for (number, backend) in (1_u32..).zip(listener.incoming().flatten()) {
                let cancelled = Arc::clone(&cancelled);
                std::thread::spawn(move || play_backend(backend, number, &cancelled));
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

    pub(crate) fn serve_command(&self, arguments: &[&str]) -> Command {
        self.serve_command_on("relay", arguments)
    }

    fn serve_command_on(&self, path: &str, arguments: &[&str]) -> Command {
        let address = self.address.to_string();
        let mut command = self.command(&["serve", "--path", path, "--listen", &address]);
        command.args(arguments);
        command
    }

    pub(crate) fn serve_command_in_kernel(&self, arguments: &[&str]) -> Command {
        self.serve_command_on("auto", arguments)
    }

    /// A router of the kernel path, if this machine can have one.
    pub(crate) fn serve_in_kernel(
        &self,
        name: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Serving> {
        let serving = self.serve_by(&mut self.serve_command_in_kernel(arguments), name)?;
        let status = self.status()?;
        if status["path"] != "kernel" {
            return Skip::because(format!("no kernel path here: {}", status["path_reason"]));
        }
        Ok(serving)
    }

    /// A command that has begun to serve, or to wait for that.
    pub(crate) fn begin(&self, command: &mut Command, name: &str) -> anyhow::Result<Serving> {
        let log = self.ground.run().join(name);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        Ok(Serving { child, log })
    }

    /// A router that serves.
    pub(crate) fn serve(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Serving> {
        self.serve_by(&mut self.serve_command(arguments), name)
    }

    pub(crate) fn serve_by(&self, command: &mut Command, name: &str) -> anyhow::Result<Serving> {
        let mut serving = self.begin(command, name)?;
        eventually("the router serves", LIMIT, || {
            let ended = serving.child.try_wait()?;
            ensure!(ended.is_none(), "it ended: {ended:?}\n{}", serving.log());
            Ok(serving.log().contains("serving").then_some(()))
        })?;
        Ok(serving)
    }

    /// A client that is logged in.
    pub(crate) fn session(&self) -> anyhow::Result<Wire> {
        let mut wire = Wire::connect_tcp(self.address)?;
        wire.set_read_limit(ANSWER_LIMIT)?;
        let parameters = [("user", "acme"), ("database", "acme")];
        wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
        wire.until_ready().context("logging in")?;
        Ok(wire)
    }

    /// The same with the key that its server has announced.
    pub(crate) fn session_with_key(&self) -> anyhow::Result<(Wire, BackendKey)> {
        let mut wire = Wire::connect_tcp(self.address)?;
        wire.set_read_limit(ANSWER_LIMIT)?;
        let key = wire.log_in(&Login::of_tenant("acme", ""))?.key()?;
        Ok((wire, key))
    }

    /// What a router says of itself, asked without `pgs status`, which needs Docker.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        self.ask("{\"request\":\"status\"}")
    }

    /// The sessions that it lists.
    pub(crate) fn sessions(&self) -> anyhow::Result<Vec<Value>> {
        let answer = self.ask("{\"request\":\"sessions\",\"tenant\":null}")?;
        let sessions = answer["sessions"].as_array();
        Ok(sessions.with_context(|| format!("{answer}"))?.clone())
    }

    /// Has it do something, or say something.
    pub(crate) fn ask(&self, request: &str) -> anyhow::Result<Value> {
        let mut socket = UnixStream::connect(self.ground.run().join("admin.sock"))?;
        socket.write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Asks for the cancellation of a session, and says what its server was asked for in all.
    pub(crate) fn cancel(&self, key: &BackendKey) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut wire = Wire::connect_tcp(self.address)?;
        wire.set_read_limit(ANSWER_LIMIT)?;
        wire.send(&key.cancel_request())?;
        ensure!(wire.receive_to_end()?.is_empty(), "a cancel is answered");
        let cancelled = self.cancelled.lock();
        Ok(cancelled.expect("nobody panics with it").clone())
    }
}

/// An application's name for which logging in takes so long: longer than a router that lets go
/// waits for it.
pub(crate) const SLOW: &str = "slow to log in";
const LOGIN_TAKES: Duration = Duration::from_secs(8);

/// What a CancelRequest has instead of a version.
const CANCEL: u32 = 1234 << 16 | 5678;

/// Lets everybody in, announces a key, and sends back what comes.
fn play_backend(mut backend: UnixStream, number: u32, cancelled: &Cancelled) {
    let echo = || -> std::io::Result<()> {
        let mut length = [0; 4];
        backend.read_exact(&mut length)?;
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        backend.read_exact(&mut rest)?;
        if rest[..4] == CANCEL.to_be_bytes() {
            let mut cancelled = cancelled.lock().expect("nobody panics with it");
            cancelled.push(rest[4..].to_vec());
            return Ok(());
        }
        if rest.windows(SLOW.len()).any(|part| part == SLOW.as_bytes()) {
            std::thread::sleep(LOGIN_TAKES);
        }
        // AuthenticationOk, BackendKeyData, ReadyForQuery.
        backend.write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c")?;
        backend.write_all(&[number.to_be_bytes(), (!number).to_be_bytes()].concat())?;
        backend.write_all(b"Z\0\0\0\x05I")?;
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

pub(crate) fn echoes(wire: &mut Wire, text: &[u8]) -> anyhow::Result<()> {
    wire.send(text)?;
    let answer = wire.receive(text.len())?;
    ensure!(answer == text, "{answer:?}");
    Ok(())
}

/// A running `pgs serve`. Killed when dropped.
pub(crate) struct Serving {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Serving {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            signal,
        )?)
    }

    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn until_ended(&mut self) -> anyhow::Result<()> {
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
