//! How a router comes to a keeper: finds one or starts one, is let in, takes what is there.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::socketpair;
use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

use super::SOCKET_NAME;
use super::channel;
use super::channel::Patience;
use super::channel::Received;
use super::holdings::distribute;
use super::message::Message;
use super::message::Refusal;
use super::store::Held;
use super::store::StoreError;
use crate::config::limits::KEEPER_EXCHANGE_DEADLINE;
use crate::config::limits::KEEPER_RETURN_WAIT_DEFAULT;
use crate::config::limits::KEEPER_TAKEOVER_DEADLINE;

/// The running program, also where its file has been replaced by a newer one.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// How a keeper process is started, and where it is found.
#[derive(Debug, Clone)]
pub struct Launch {
    /// `pgs`.
    pub program: PathBuf,
    /// The run directory, in which it makes its socket; absolute.
    pub run: PathBuf,
    /// How long it waits for a router to come back.
    pub return_wait: Duration,
}

impl Launch {
    /// A keeper for this run directory, by the program that is running.
    pub fn of_this_program(run: PathBuf) -> Self {
        Self {
            program: PathBuf::from(THIS_PROGRAM),
            run,
            return_wait: KEEPER_RETURN_WAIT_DEFAULT,
        }
    }
}

/// The connection of the router to its keeper.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) socket: Socket,
    pub(super) process_id: u32,
    /// Where this process has started it.
    pub(super) child: Option<Child>,
    pub(super) held: Held,
}

/// Attaches to the keeper that is there, or to a new one.
pub(super) fn attach(launch: &Launch, take_over: bool) -> Result<Attached, StoreError> {
    let socket = match connect(launch) {
        Ok(Some(socket)) => socket,
        Ok(None) => return start(launch),
        Err(error) => return Err(StoreError::system("connect to the keeper")(error)),
    };
    match greet(socket, take_over) {
        // It was about to end.
        Err(StoreError::Gone) => start(launch),
        other => other,
    }
}

/// A connection to the keeper, if there is one.
pub(super) fn connect(launch: &Launch) -> io::Result<Option<Socket>> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    set_deadline(&socket, KEEPER_EXCHANGE_DEADLINE)?;
    match socket.connect(&SockAddr::unix(launch.run.join(SOCKET_NAME))?) {
        Ok(()) => Ok(Some(socket)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

/// Starts one, and attaches to it by a connection that it is born with.
pub(super) fn start(launch: &Launch) -> Result<Attached, StoreError> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs): (OwnedFd, OwnedFd) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(|error| StoreError::system("socketpair")(error.into()))?;
    let mut child = Command::new(&launch.program)
        .arg("--run-dir")
        .arg(&launch.run)
        .arg("keeper")
        .arg("--return-wait-milliseconds")
        .arg(launch.return_wait.as_millis().to_string())
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(StoreError::system("start the keeper"))?;
    let socket = Socket::from(ours);
    let attached = match set_deadline(&socket, KEEPER_EXCHANGE_DEADLINE) {
        Ok(()) => greet(socket, false),
        Err(error) => Err(StoreError::system("setsockopt")(error)),
    };
    match attached {
        Ok(attached) => Ok(Attached {
            process_id: child.id(),
            child: Some(child),
            ..attached
        }),
        Err(error) => {
            // It has ended, or is of no use: either way it is not left behind.
            drop(child.kill());
            drop(child.wait());
            Err(match error {
                StoreError::Gone => StoreError::NotBegun("it ended at once".to_owned()),
                other => other,
            })
        }
    }
}

fn set_deadline(socket: &Socket, deadline: Duration) -> io::Result<()> {
    socket.set_write_timeout(Some(deadline))?;
    socket.set_read_timeout(Some(deadline))
}

/// Becomes the router, and takes what is kept.
fn greet(socket: Socket, take_over: bool) -> Result<Attached, StoreError> {
    let peer = rustix::net::sockopt::socket_peercred(&socket)
        .map_err(|error| StoreError::system("getsockopt SO_PEERCRED")(error.into()))?;
    if take_over {
        let deadline = KEEPER_TAKEOVER_DEADLINE + KEEPER_EXCHANGE_DEADLINE;
        set_deadline(&socket, deadline).map_err(StoreError::system("setsockopt"))?;
    }
    say(&socket, &Message::Hello { take_over })?;
    match hear(&socket)? {
        (Message::Welcome { .. }, _) => {}
        (
            Message::Refused {
                refusal,
                process_id,
            },
            _,
        ) => return Err(refused(refusal, process_id)),
        (Message::NotBegun(why), _) => return Err(StoreError::NotBegun(why)),
        (other, _) => return Err(StoreError::Unexpected(format!("{other:?}"))),
    }
    let held = take(&socket)?;
    Ok(Attached {
        socket,
        process_id: peer.pid.as_raw_nonzero().get().unsigned_abs(),
        child: None,
        held,
    })
}

fn refused(refusal: Refusal, process_id: u32) -> StoreError {
    match refusal {
        Refusal::Busy => StoreError::Busy { process_id },
        Refusal::NotLetGo => StoreError::NotLetGo { process_id },
        Refusal::NobodyWaits => StoreError::NobodyWaits,
        Refusal::Full => StoreError::Full("the keeper takes no more descriptors"),
    }
}

fn take(socket: &Socket) -> Result<Held, StoreError> {
    say(socket, &Message::TakeAll)?;
    let mut held = Held::default();
    loop {
        match hear(socket)? {
            (Message::Global(name), descriptors) => {
                let named = descriptors.into_iter().map(|one| (name.clone(), one));
                held.globals.extend(named);
            }
            (Message::Slots(slots), descriptors) => {
                held.slots.extend(distribute(slots, descriptors));
            }
            (Message::End { globals, slots }, _) => {
                let got = (held.globals.len(), held.slots.len());
                if got == (globals as usize, slots as usize) {
                    return Ok(held);
                }
                let what = format!("{got:?} of {globals} names and {slots} slots");
                return Err(StoreError::Unexpected(what));
            }
            (other, _) => return Err(StoreError::Unexpected(format!("{other:?}"))),
        }
    }
}

pub(super) fn say(socket: &Socket, message: &Message) -> Result<(), StoreError> {
    channel::send(socket, message, &[], Patience::Wait).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => StoreError::Gone,
        _ => StoreError::system("sendmsg to the keeper")(error),
    })
}

pub(super) fn hear(socket: &Socket) -> Result<(Message, Vec<OwnedFd>), StoreError> {
    match channel::receive(socket) {
        Ok(Received::Message(message, descriptors)) => Ok((message, descriptors)),
        Ok(Received::WithoutDescriptors(_)) => Err(StoreError::Full(
            "this process's limit on open files is reached",
        )),
        Ok(Received::Closed) => Err(StoreError::Gone),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(StoreError::Gone),
        Err(error) => Err(StoreError::system("recvmsg from the keeper")(error)),
    }
}
