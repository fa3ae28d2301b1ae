//! A tenant without a container: a thread of this process is its server. It says just enough for a
//! login, and then nothing, so that thousands of its sessions cost no more than their sockets.

use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs::config::directories::Directories;
use pgs::tenant::id::TenantId;
use pgs::tenant::record::Access;
use pgs::tenant::record::Blueprint;
use pgs::tenant::record::VolumeFate;
use pgs::tenant::registry::Registry;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;
use tempfile::TempDir;

use crate::login::PROTOCOL_3_0;
use crate::login::startup_packet;
use crate::wire::packed;

/// The tenant.
pub const TENANT: &str = "stand_in";
const IO_LIMIT: Duration = Duration::from_secs(60);

/// AuthenticationOk, what a server of today says of itself, and ReadyForQuery.
const PARAMETERS: [(&str, &str); 6] = [
    ("server_version", "18.0"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "Etc/UTC"),
    ("standard_conforming_strings", "on"),
];

/// A state directory with one tenant. Its server, if any, listens as long as this lives.
#[derive(Debug)]
pub struct StandIn {
    directory: TempDir,
    socket: PathBuf,
    server: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl StandIn {
    /// Registers it and begins to listen.
    pub fn start() -> anyhow::Result<Self> {
        let mut stand_in = Self::without_server()?;
        let listener = UnixListener::bind(&stand_in.socket)?;
        let told = Arc::clone(&stand_in.ended);
        stand_in.server = Some(thread::spawn(move || let_in(&listener, &told)));
        Ok(stand_in)
    }

    /// Registers it, and leaves it to the test to listen on its socket.
    pub fn without_server() -> anyhow::Result<Self> {
        // Short, because the path of a Unix socket has to fit into 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("pgs-stand-in-")
            .tempdir_in("/tmp")?;
        let (state, run) = (directory.path().join("state"), directory.path().join("run"));
        let directories = Directories::new(state, &run);
        fs::create_dir_all(&run)?;
        let registry = Registry::open(&directories)?;
        let id = TenantId::parse(TENANT)?;
        let blueprint = Blueprint {
            image: "none".to_owned(),
            memory_bytes: 1,
            cpu_millis: 1,
            network: None,
        };
        registry.begin_create(&id, &blueprint, VolumeFate::Keep)?;
        registry.finish_create(&id, Access::Enabled)?;
        let sockets = directories.socket_directory(&id);
        fs::create_dir_all(&sockets)?;
        Ok(Self {
            directory,
            socket: sockets.join(".s.PGSQL.5432"),
            server: None,
            ended: Arc::default(),
        })
    }

    /// Where its server listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A run directory.
    pub fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// A client that is logged in, and holds nothing but its socket. `source` is where it connects
    /// from: all of 127.0.0.0/8 is the machine's own.
    pub fn log_in(&self, router: SocketAddr, source: Ipv4Addr) -> anyhow::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&router.into()).context("connect")?;
        let mut client = TcpStream::from(socket);
        client.set_read_timeout(Some(IO_LIMIT))?;
        client.write_all(&startup_packet(PROTOCOL_3_0, &[("user", TENANT)]))?;
        let mut greeting = vec![0; greeting(0).len()];
        client.read_exact(&mut greeting).context("greeting")?;
        ensure!(greeting.ends_with(b"Z\0\0\0\x05I"), "{greeting:?}");
        Ok(client)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(server) = self.server.take() {
            // Wakes it; where it is not there any more, nobody has to be woken.
            UnixStream::connect(&self.socket).ok();
            server.join().ok();
        }
    }
}

/// Accepts until it is told to end, and keeps every connection until then.
fn let_in(listener: &UnixListener, ended: &AtomicBool) {
    let mut kept = Vec::new();
    for (number, backend) in (1..).zip(listener.incoming().flatten()) {
        if ended.load(Relaxed) {
            return;
        }
        // A client that is gone is the test's affair.
        if let Ok(backend) = greet(backend, number) {
            kept.push(backend);
        }
    }
}

fn greet(mut backend: UnixStream, number: u32) -> std::io::Result<UnixStream> {
    backend.set_read_timeout(Some(IO_LIMIT))?;
    let mut length = [0; 4];
    backend.read_exact(&mut length)?;
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    backend.read_exact(&mut rest)?;
    backend.write_all(&greeting(number))?;
    Ok(backend)
}

fn greeting(number: u32) -> Vec<u8> {
    let mut bytes = packed(b'R', &[0; 4]);
    for (name, value) in PARAMETERS {
        let body = [name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat();
        bytes.extend(packed(b'S', &body));
    }
    let key = [number.to_be_bytes(), (!number).to_be_bytes()].concat();
    bytes.extend(packed(b'K', &key));
    bytes.extend(packed(b'Z', b"I"));
    bytes
}
