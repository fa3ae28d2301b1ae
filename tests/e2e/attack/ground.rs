//! What is attacked: a router with TLS and one well-behaved tenant.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::installation::Installation;
use pgs_tests::memory::MemoryUse;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::tenant::Login;
use pgs_tests::tenant::Tenant;
use pgs_tests::trust;
use pgs_tests::wire::Wire;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

const TENANT: &str = "calm";
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const IO_LIMIT: Duration = Duration::from_secs(5);
/// How long a client may take to get in after the attacks.
const LOGIN_LIMIT: Duration = Duration::from_secs(2);

/// What a router uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) resident: u64,
    pub(super) descriptors: usize,
}

/// Ends in the order of its fields.
pub(super) struct Ground<'a> {
    router: Router,
    tenant: Tenant<'a>,
    path: DataPath,
}

impl<'a> Ground<'a> {
    pub(super) fn prepare(installation: &'a Installation) -> anyhow::Result<Self> {
        let issued = trust::issue(&installation.scratch("issued"), &["localhost"])?;
        let (certificate, key) = (
            issued.certificate.to_string_lossy(),
            issued.key.to_string_lossy(),
        );
        let set = [
            "tls",
            "set",
            "--default",
            "--certificate",
            &certificate,
            "--key",
            &key,
        ];
        installation.router().pgs(&set)?;
        let tenant = installation.create_tenant(TENANT)?;
        let (state, run) = (
            installation.scratch("state"),
            installation.scratch("attacked"),
        );
        let path = installation.path();
        Ok(Self {
            router: Router::start(&state, &run, path)?,
            tenant,
            path,
        })
    }

    pub(super) fn path(&self) -> DataPath {
        self.path
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.router.address()
    }

    pub(super) fn login(&self) -> &Login {
        self.tenant.login()
    }

    pub(super) fn figures(&self) -> anyhow::Result<Figures> {
        let process = self.router.process_id();
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?.count();
        Ok(Figures {
            resident: MemoryUse::now(process)?.resident,
            descriptors,
        })
    }

    /// A connection on which neither side can hang the test, from another address than the tenant's
    /// own clients.
    pub(super) fn connect(&self) -> anyhow::Result<TcpStream> {
        self.connect_from(ATTACKER)
    }

    /// The same from an address of the loopback network.
    pub(super) fn connect_from(&self, source: Ipv4Addr) -> anyhow::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket
            .connect_timeout(&self.address().into(), CONNECT_LIMIT)
            .context("connecting as an attacker")?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IO_LIMIT))?;
        stream.set_write_timeout(Some(IO_LIMIT))?;
        Ok(stream)
    }

    pub(super) fn still_lets_clients_in(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut wire = Wire::connect_tcp(self.address())?;
        wire.log_in(self.login())?;
        ensure!(wire.query_value("select 40 + 2")? == "42");
        ensure!(began.elapsed() < LOGIN_LIMIT, "after {:?}", began.elapsed());
        Ok(())
    }
}

/// Strikes so often a second until it is told to stop, and counts.
pub(super) fn paced(
    per_second: u32,
    stop: &AtomicBool,
    mut strike: impl FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut struck = 0;
    while !stop.load(Ordering::Relaxed) {
        strike(struck).with_context(|| format!("strike {struck}"))?;
        struck += 1;
        let due = Duration::from_secs_f64(struck as f64 / f64::from(per_second));
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    Ok(struck)
}
