//! The keeper process: holds descriptors for a router that may die, and for the one after it.
//!
//! One thread, no runtime, no log: whatever it has to say it says to its router.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use nix::sys::stat::Mode;
use nix::sys::stat::umask;
use socket2::Domain;
use socket2::SockAddr;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;

use super::SOCKET_NAME;
use super::channel;
use super::channel::Patience;
use super::connections::Connections;
use super::message::Message;
use super::state::Act;
use super::state::Keeper;
use crate::config::limits::EPOLL_GRANULE;
use crate::config::limits::KEEPER_ACCEPT_RETRY_INTERVAL;
use crate::config::limits::KEEPER_CONNECTIONS_MAX;
use crate::config::limits::KEEPER_EXCHANGE_DEADLINE;

/// As `ps` shows it; at most fifteen bytes count.
pub(super) const PROCESS_NAME: &str = "pgs-keeper";
/// Below these are standard input, output and error.
const FIRST_DESCRIPTOR: i32 = 3;

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It was started by hand.
    #[error("standard input is not the connection of a router")]
    NoRouter,
    /// A system call failed.
    #[error("{call}: {error}")]
    System {
        /// Which.
        call: &'static str,
        /// Why.
        error: io::Error,
    },
}

fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> KeeperError {
    move |error| KeeperError::System {
        call,
        error: error.into(),
    }
}

/// Runs until there is nothing left to keep. The router that started this process is on standard
/// input.
///
/// # Errors
/// What kept it from beginning; its router has been told.
pub fn run(run: &Path, return_wait: Duration) -> Result<(), KeeperError> {
    close_inherited().map_err(system("close"))?;
    let first = first_router()?;
    let listener = match begin(run) {
        Ok(listener) => listener,
        Err(error) => {
            tell(&first, &error);
            return Err(error);
        }
    };
    let mut keeper = Keeper::new(return_wait);
    let mut connections = Connections::default();
    let ended = connections
        .add(first)
        .and_then(|()| serve(&listener.socket, &mut keeper, &mut connections));
    listener.remove();
    ended.map_err(system("poll"))
}

/// Says why there is no keeper, behind what the router has said: a socket that is closed before it
/// is read gives the other side an error in the place of the answer.
fn tell(router: &Socket, error: &KeeperError) {
    let message = Message::NotBegun(error.to_string());
    let heard = router
        .set_read_timeout(Some(KEEPER_EXCHANGE_DEADLINE))
        .and_then(|()| channel::receive(router));
    // A router that says nothing is gone, and so is the reason to tell it anything.
    drop(heard.and_then(|_| channel::send(router, &message, &[], Patience::None)));
}

/// The connection on standard input, where nothing is left of it: it would stay open.
fn first_router() -> Result<Socket, KeeperError> {
    let input = io::stdin();
    let kind = SockRef::from(&input).r#type();
    if kind.is_ok_and(|kind| kind == Type::SEQPACKET) {
        let socket = input.as_fd().try_clone_to_owned().map_err(system("dup"))?;
        let nothing = File::open("/dev/null").map_err(system("open /dev/null"))?;
        nix::unistd::dup2_stdin(nothing).map_err(system("dup2"))?;
        return Ok(Socket::from(socket));
    }
    Err(KeeperError::NoRouter)
}

/// A session of its own, no secrets in core dumps, a socket that only its user can use.
fn begin(run: &Path) -> Result<Listener, KeeperError> {
    // Out of the router's process group: Ctrl-C in a terminal reaches the whole group.
    nix::unistd::setsid().map_err(system("setsid"))?;
    let name = CString::new(PROCESS_NAME).unwrap_or_default();
    nix::sys::prctl::set_name(&name).map_err(system("prctl PR_SET_NAME"))?;
    // The table holds cancel keys: no core dump, no look into its memory.
    nix::sys::prctl::set_dumpable(false).map_err(system("prctl PR_SET_DUMPABLE"))?;
    raise_descriptor_limit();
    let listener = Listener::bind(run.join(SOCKET_NAME)).map_err(system("bind keeper.sock"))?;
    // No directory is kept from being unmounted.
    nix::unistd::chdir("/").map_err(system("chdir /"))?;
    Ok(listener)
}

/// As far as it goes: it was the router's, which has raised its own. Where it is too low in the
/// end, the router is told.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

/// Whatever the router was started with, such as the pipe of a shell, must not live as long as
/// this process.
fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|one| *one >= FIRST_DESCRIPTOR) {
        match nix::unistd::close(descriptor) {
            // The directory that was just read is closed already.
            Ok(()) | Err(nix::Error::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

struct Listener {
    socket: Socket,
    path: PathBuf,
    /// Device and inode, by which a successor's socket is told apart.
    identity: (u64, u64),
}

impl Listener {
    fn bind(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = socket.bind(&SockAddr::unix(&path)?);
        umask(before);
        bound?;
        socket.listen(KEEPER_CONNECTIONS_MAX as i32)?;
        socket.set_nonblocking(true)?;
        let identity = identity(&path)?;
        Ok(Self {
            socket,
            path,
            identity,
        })
    }

    fn remove(self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Nobody is left to be told, and a file that stays is replaced by the next keeper.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn serve(listener: &Socket, keeper: &mut Keeper, connections: &mut Connections) -> io::Result<()> {
    loop {
        let ready = wait(listener, keeper, connections)?;
        if ready.listener {
            accept(listener, connections)?;
        }
        for id in ready.connections {
            if keeper.advance_connection(id, connections) == Act::End {
                return Ok(());
            }
        }
        if keeper.advance(connections, Instant::now())? == Act::End {
            return Ok(());
        }
    }
}

struct Ready {
    listener: bool,
    connections: Vec<u64>,
}

fn wait(listener: &Socket, keeper: &Keeper, connections: &Connections) -> io::Result<Ready> {
    let mut looks = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if connections.len() >= KEEPER_CONNECTIONS_MAX {
        // Further ones wait in the listener's queue.
        looks[0] = PollFd::new(listener.as_fd(), PollFlags::empty());
    }
    let (ids, sockets): (Vec<_>, Vec<_>) = connections.sockets().unzip();
    looks.extend(
        sockets
            .into_iter()
            .map(|one| PollFd::new(one, PollFlags::POLLIN)),
    );
    if let Some(watch) = keeper.watch() {
        looks.push(PollFd::new(watch, PollFlags::POLLIN));
    }
    let now = Instant::now();
    let timeout = keeper.next(connections).map_or(PollTimeout::NONE, |next| {
        let wait = next.saturating_duration_since(now) + EPOLL_GRANULE;
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut looks, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let any = |look: &PollFd<'_>| look.any().unwrap_or(false);
    let connections = ids.into_iter().zip(&looks[1..]);
    Ok(Ready {
        listener: any(&looks[0]),
        connections: connections
            .filter(|(_, look)| any(look))
            .map(|(id, _)| id)
            .collect(),
    })
}

fn accept(listener: &Socket, connections: &mut Connections) -> io::Result<()> {
    let socket = match listener.accept() {
        Ok((socket, _)) => socket,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(_) => {
            // Too many open files, most likely: it waits until there are fewer.
            std::thread::sleep(KEEPER_ACCEPT_RETRY_INTERVAL);
            return Ok(());
        }
    };
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(KEEPER_EXCHANGE_DEADLINE))?;
    socket.set_write_timeout(Some(KEEPER_EXCHANGE_DEADLINE))?;
    connections.add(socket)
}
