//! A run directory for one test, the far ends of its sessions, and what is left at the end.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::stat::fstat;
use pgs::keeper::inquiry::KeeperReport;
use pgs::keeper::inquiry::inquire;
use pgs::keeper::link::ProcessStore;
use pgs::keeper::store::Event;
use pgs::keeper::store::Slot;
use pgs::keeper::store::StoreError;
use pgs_tests::process::eventually;
pub(crate) use pgs_tests::process::is_alive;
use tempfile::TempDir;

use crate::stand_in::launch;

/// For anything that is to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// How long nothing is to happen.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// One test's directory and listening sockets.
pub(crate) struct Ground {
    directory: TempDir,
    pub(crate) client_listener: TcpListener,
    backend_listener: UnixListener,
    pub(crate) return_wait: Duration,
}

/// The far ends of one slot's sockets, and which near ends they have.
pub(crate) struct Session {
    /// Where the client is.
    pub(crate) client: TcpStream,
    /// Where the tenant's server is.
    pub(crate) backend: UnixStream,
    /// Client, backend, aside.
    pub(crate) inodes: [u64; 3],
}

impl Ground {
    /// With a keeper that waits so long for a router to come back.
    pub(crate) fn new(return_wait: Duration) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("pgs-keeper-").tempdir()?;
        let backend_listener = UnixListener::bind(directory.path().join("backend"))?;
        Ok(Self {
            client_listener: TcpListener::bind("127.0.0.1:0")?,
            backend_listener,
            directory,
            return_wait,
        })
    }

    pub(crate) fn run(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn backend_path(&self) -> PathBuf {
        self.run().join("backend")
    }

    /// Accepts what the stand-in has connected for `slot <number> <inode> <inode> <inode>`.
    pub(crate) fn far_ends(&self, line: &str) -> anyhow::Result<Session> {
        let (client, _) = self.client_listener.accept()?;
        let (backend, _) = self.backend_listener.accept()?;
        client.set_read_timeout(Some(LIMIT))?;
        backend.set_read_timeout(Some(LIMIT))?;
        let mut words = line.split(' ').skip(2).map(str::parse);
        let mut inode = || {
            words
                .next()
                .context("too few inodes")?
                .context(line.to_owned())
        };
        Ok(Session {
            client,
            backend,
            inodes: [inode()?, inode()?, inode()?],
        })
    }

    /// This process as a router, and what its store tells it.
    pub(crate) fn attach(
        &self,
        take_over: bool,
    ) -> Result<(ProcessStore, mpsc::Receiver<Event>), StoreError> {
        let (told, events) = mpsc::channel();
        let listener = move |event| {
            // The test may have stopped listening.
            told.send(event).ok();
        };
        let launch = launch(self.run(), self.return_wait);
        let store = ProcessStore::open(launch, take_over, Box::new(listener))?;
        Ok((store, events))
    }

    /// What the keeper says of itself.
    pub(crate) fn report(&self) -> anyhow::Result<KeeperReport> {
        inquire(self.run())?.context("there is no keeper")
    }

    /// Waits until it holds so many slots.
    pub(crate) fn until_slots(&self, slots: u32) -> anyhow::Result<()> {
        let what = format!("{slots} slots are kept");
        eventually(&what, LIMIT, || {
            Ok((self.report()?.slots == slots).then_some(()))
        })
    }

    /// Waits until the keeper is gone, with its socket.
    pub(crate) fn until_gone(&self, keeper: u32) -> anyhow::Result<()> {
        eventually("the keeper has ended", LIMIT, || {
            Ok((!is_alive(keeper)).then_some(()))
        })?;
        ensure!(!self.run().join("keeper.sock").exists(), "its socket stays");
        ensure!(inquire(self.run())?.is_none(), "somebody answers");
        Ok(())
    }
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(process_id: u32) -> anyhow::Result<usize> {
    let open = fs::read_dir(format!("/proc/{process_id}/fd"));
    Ok(open.context("root can look")?.count())
}

pub(crate) fn slot(number: u32) -> Slot {
    Slot::new(number).expect("tests use small numbers")
}

/// The kernel's name for a socket, the same in every process that has it open.
pub(crate) fn inode(descriptor: impl AsFd) -> anyhow::Result<u64> {
    Ok(fstat(descriptor)?.st_ino)
}

/// Sends from one end and receives at the other.
pub(crate) fn travels(
    from: &mut impl Write,
    to: &mut impl Read,
    bytes: &[u8],
) -> anyhow::Result<()> {
    from.write_all(bytes)?;
    let mut received = vec![0; bytes.len()];
    to.read_exact(&mut received)?;
    ensure!(received == bytes, "{received:?} instead of {bytes:?}");
    Ok(())
}

/// Reads to the end of the stream, which has to come.
pub(crate) fn ends(stream: &mut impl Read) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("no end")?;
    ensure!(rest.is_empty(), "{} bytes before the end", rest.len());
    Ok(())
}
