//! systemd's file-descriptor store: the manager keeps what it is sent, and passes it to the next
//! process of the unit.
//!
//! Datagrams and names are as in sd_notify(3) and sd_listen_fds(3), the variables of the
//! environment too. The unit needs `FileDescriptorStoreMax=`; systemd says so in `FDSTORE`, from
//! version 254 on.
//!
//! `systemctl stop` ends what is kept, `restart` does not: the router cannot tell one from the
//! other, so that it leaves everything where it is in both cases.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::pidfd_getfd;
use rustix::process::pidfd_open;
use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

use super::channel;
use super::channel::Patience;
use super::store::DescriptorStore;
use super::store::Farewell;
use super::store::GlobalName;
use super::store::Health;
use super::store::Held;
use super::store::Slot;
use super::store::SlotDescriptors;
use super::store::StoreError;
use crate::config::limits::KEEPER_PUT_DEADLINE;

/// `SD_LISTEN_FDS_START` of systemd's `src/systemd/sd-daemon.h`.
const FIRST_DESCRIPTOR: i32 = 3;
/// What our names begin with, so that a unit can also have sockets of its own.
const GLOBAL_PREFIX: &str = "pgs.global.";
const SLOT_PREFIX: &str = "pgs.slot.";
/// In the order of the parts of [`SlotDescriptors`]. The last one is the private socket, elsewhere
/// called `aside`: here it keeps the name by which other versions of the router store it.
const PART_NAMES: [&str; 3] = ["client", "backend", "spill"];

/// What systemd tells a process about its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    notify_socket: String,
    /// Name of each descriptor that was passed, from [`FIRST_DESCRIPTOR`] on.
    passed: Vec<String>,
}

impl Environment {
    /// None where this process has no such store.
    pub fn of_this_process() -> Option<Self> {
        Self::read(|name| env::var(name).ok(), std::process::id())
    }

    /// Whether systemd runs this process and stores nothing for it. It then also ends every other
    /// process of the unit when this one is killed.
    pub fn unit_without_store() -> bool {
        let process_id = env::var("SYSTEMD_EXEC_PID").ok();
        let is_main = process_id.and_then(|id| id.parse().ok()) == Some(std::process::id());
        is_main && Self::of_this_process().is_none()
    }

    fn read(variable: impl Fn(&str) -> Option<String>, process_id: u32) -> Option<Self> {
        let notify_socket = variable("NOTIFY_SOCKET")?;
        let number = |name| variable(name)?.parse::<u32>().ok();
        number("FDSTORE").filter(|max| *max > 0)?;
        let for_this_process = number("LISTEN_PID") == Some(process_id);
        let count = number("LISTEN_FDS").filter(|_| for_this_process);
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned);
        let unnamed = std::iter::repeat_with(String::new);
        let passed = names.chain(unnamed).take(count.unwrap_or(0) as usize);
        Some(Self {
            passed: passed.collect(),
            notify_socket,
        })
    }

    /// Makes the descriptors that were passed this process's own. What is not ours is left open.
    fn take(&self) -> io::Result<Held> {
        let own = Pid::from_raw(std::process::id().cast_signed());
        let own = own.ok_or(io::ErrorKind::NotFound)?;
        let this_process = pidfd_open(own, PidfdFlags::empty())?;
        let mut globals = Vec::new();
        let mut slots: BTreeMap<Slot, [Option<OwnedFd>; 3]> = BTreeMap::new();
        for (descriptor, name) in (FIRST_DESCRIPTOR..).zip(&self.passed) {
            let Some(name) = Name::parse(name) else {
                continue;
            };
            // A copy, closed on exec, in the place of the one that has come without an owner.
            let flags = PidfdGetfdFlags::empty();
            let copy = pidfd_getfd(&this_process, descriptor, flags)?;
            nix::unistd::close(descriptor)?;
            match name {
                Name::Global(name) => globals.push((name, copy)),
                Name::Slot(slot, part) => slots.entry(slot).or_default()[part] = Some(copy),
            }
        }
        let slots = slots.into_iter();
        Ok(Held {
            globals,
            slots: slots
                .map(|(slot, parts)| (slot, SlotDescriptors::from_parts(parts)))
                .collect(),
        })
    }
}

/// What a name in `LISTEN_FDNAMES` stands for.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Global(GlobalName),
    Slot(Slot, usize),
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix(GLOBAL_PREFIX) {
            return GlobalName::new(name).map(Self::Global);
        }
        let (number, part) = text.strip_prefix(SLOT_PREFIX)?.split_once('.')?;
        let part = PART_NAMES.iter().position(|name| *name == part)?;
        Some(Self::Slot(Slot::new(number.parse().ok()?)?, part))
    }
}

fn global_name(name: &GlobalName) -> String {
    format!("{GLOBAL_PREFIX}{name}")
}

fn slot_name(slot: Slot, part: usize) -> String {
    format!("{SLOT_PREFIX}{}.{}", slot.number(), PART_NAMES[part])
}

/// systemd's store.
#[derive(Debug)]
pub struct SystemdStore {
    manager: Socket,
    held: Mutex<Option<Held>>,
    /// Something was not taken.
    failing: AtomicBool,
}

impl SystemdStore {
    /// Takes what was passed to this process. To be called once.
    ///
    /// # Errors
    /// The manager cannot be reached, or a passed descriptor is not there.
    pub fn open(environment: &Environment) -> Result<Self, StoreError> {
        let manager = connect(&environment.notify_socket)
            .map_err(StoreError::system("connect to NOTIFY_SOCKET"))?;
        let held = environment
            .take()
            .map_err(StoreError::system("take the passed descriptors"))?;
        Ok(Self {
            manager,
            held: Mutex::new(Some(held)),
            failing: AtomicBool::new(false),
        })
    }

    fn put(&self, name: &str, descriptor: BorrowedFd<'_>) -> Result<(), StoreError> {
        // FDPOLL=0: else systemd drops a socket whose peer has hung up, with what is queued in it.
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
        self.notify(&text, &[descriptor])
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    fn notify(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> Result<(), StoreError> {
        let sent = channel::send_bytes(&self.manager, text.as_bytes(), descriptors, Patience::Wait);
        sent.map_err(|error| {
            self.failing.store(true, Relaxed);
            StoreError::system("sendmsg to NOTIFY_SOCKET")(error)
        })
    }
}

/// A path, or a name in the abstract name space behind an `@`.
fn connect(address: &str) -> io::Result<Socket> {
    let address = match address.strip_prefix('@') {
        Some(name) => SockAddr::unix(format!("\0{name}"))?,
        None => SockAddr::unix(address)?,
    };
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.set_write_timeout(Some(KEEPER_PUT_DEADLINE))?;
    socket.connect(&address)?;
    Ok(socket)
}

impl DescriptorStore for SystemdStore {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn process_id(&self) -> Option<u32> {
        None
    }

    fn keeps_after_the_end(&self) -> bool {
        true
    }

    fn put_global(&self, name: &GlobalName, descriptor: BorrowedFd<'_>) -> Result<(), StoreError> {
        let name = global_name(name);
        self.remove(&name)?;
        self.put(&name, descriptor)
    }

    fn drop_global(&self, name: &GlobalName) -> Result<(), StoreError> {
        self.remove(&global_name(name))
    }

    fn put_slot(
        &self,
        slot: Slot,
        descriptors: &SlotDescriptors<BorrowedFd<'_>>,
    ) -> Result<(), StoreError> {
        self.drop_slot(slot)?;
        for (part, descriptor) in descriptors.parts().into_iter().enumerate() {
            if let Some(descriptor) = descriptor {
                self.put(&slot_name(slot, part), descriptor.as_fd())?;
            }
        }
        Ok(())
    }

    fn drop_slot(&self, slot: Slot) -> Result<(), StoreError> {
        (0..PART_NAMES.len()).try_for_each(|part| self.remove(&slot_name(slot, part)))
    }

    fn holds_slot(&self, _: Slot) -> bool {
        true
    }

    fn take_all(&self) -> Held {
        // Nothing that holds the lock can leave its content half-changed.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take().unwrap_or_default()
    }

    fn health(&self) -> Health {
        match self.failing.load(Relaxed) {
            true => Health::Failing("systemd did not take every descriptor in time".to_owned()),
            false => Health::Working,
        }
    }

    fn goodbye(&self, _: Farewell) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Option<Environment> {
        let find = |name: &str| pairs.iter().find(|(one, _)| *one == name);
        Environment::read(|name| find(name).map(|(_, value)| (*value).to_owned()), 7)
    }

    #[test]
    fn a_store_needs_both_the_socket_and_room() {
        let socket = ("NOTIFY_SOCKET", "/run/systemd/notify");
        assert_eq!(environment(&[socket]), None);
        assert_eq!(environment(&[socket, ("FDSTORE", "0")]), None);
        assert_eq!(environment(&[("FDSTORE", "9")]), None);
        let found = environment(&[socket, ("FDSTORE", "9")]).unwrap();
        assert!(found.passed.is_empty());
    }

    #[test]
    fn passed_descriptors_count_only_for_the_process_that_they_are_for() {
        let of = |process_id| {
            environment(&[
                ("NOTIFY_SOCKET", "@x"),
                ("FDSTORE", "9"),
                ("LISTEN_PID", process_id),
                ("LISTEN_FDS", "3"),
                ("LISTEN_FDNAMES", "pgs.slot.4.backend:http"),
            ])
            .unwrap()
        };
        assert!(of("8").passed.is_empty());
        assert_eq!(of("7").passed, ["pgs.slot.4.backend", "http", ""]);
    }

    #[test]
    fn names_survive_the_way() {
        let slot = Slot::new(40).unwrap();
        for part in 0..PART_NAMES.len() {
            let name = slot_name(slot, part);
            assert_eq!(Name::parse(&name), Some(Name::Slot(slot, part)));
        }
        let name = GlobalName::new("listener.0").unwrap();
        assert_eq!(Name::parse(&global_name(&name)), Some(Name::Global(name)));
        for foreign in [
            "",
            "http",
            "pgs.slot.x.client",
            "pgs.slot.1",
            "pgs.slot.1.other",
        ] {
            assert_eq!(Name::parse(foreign), None, "{foreign}");
        }
    }
}
