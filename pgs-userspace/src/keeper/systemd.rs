//! systemd's file-descriptor store: the manager keeps what it is sent, and passes it to the next
//! process of the unit.
//!
//! Datagrams and names are as in sd_notify(3) and sd_listen_fds(3), the variables of the
//! environment too. The unit needs `FileDescriptorStoreMax=`; systemd says so in `FDSTORE`, from
//! version 254 on.
//!
//! `systemctl stop` ends what is kept, `restart` does not: the router cannot tell one from the
//! other, so that it leaves everything where it is in both cases.

mod contents;
mod names;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::env;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::pidfd_getfd;
use rustix::process::pidfd_open;
use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

use self::contents::Contents;
use self::contents::Share;
use self::names::Name;
use self::names::Naming;
use self::names::global_name;
use self::names::slot_name;
use self::names::slot_names;
use super::channel;
use super::channel::Patience;
use super::link::is_full;
use super::link::lock;
use super::store::DescriptorStore;
use super::store::Farewell;
use super::store::GlobalName;
use super::store::Health;
use super::store::Held;
use super::store::Slot;
use super::store::SlotDescriptors;
use super::store::StoreError;
use crate::config::limits::KEEPER_NO_ROOM_POLL_INTERVAL;
use crate::config::limits::KEEPER_PUT_DEADLINE;

/// `SD_LISTEN_FDS_START` of systemd's `src/systemd/sd-daemon.h`.
const FIRST_DESCRIPTOR: i32 = 3;

/// What systemd tells a process about its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    notify_socket: String,
    /// How many it stores at most.
    descriptors_max: usize,
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
        let descriptors_max = number("FDSTORE").filter(|max| *max > 0)? as usize;
        let for_this_process = number("LISTEN_PID") == Some(process_id);
        let count = number("LISTEN_FDS").filter(|_| for_this_process);
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned);
        let unnamed = std::iter::repeat_with(String::new);
        let passed = names.chain(unnamed).take(count.unwrap_or(0) as usize);
        Some(Self {
            notify_socket,
            descriptors_max,
            passed: passed.collect(),
        })
    }

    /// Makes the descriptors that were passed this process's own. What is not ours is left open.
    fn take(&self) -> io::Result<Held> {
        let own = Pid::from_raw(std::process::id().cast_signed());
        let own = own.ok_or(io::ErrorKind::NotFound)?;
        let this_process = pidfd_open(own, PidfdFlags::empty())?;
        let mut globals = Vec::new();
        let mut slots: BTreeMap<Slot, (Naming, [Option<OwnedFd>; 3])> = BTreeMap::new();
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
                Name::Slot(slot, part, naming) => {
                    let (known, parts) = slots.entry(slot).or_insert((naming, Default::default()));
                    // An earlier version, which has put what has its names, did not see the others:
                    // those are a session's that has ended.
                    match (*known, naming) {
                        (Naming::Former, Naming::Short) => continue,
                        (Naming::Short, Naming::Former) => *parts = Default::default(),
                        _ => {}
                    }
                    *known = naming;
                    parts[part] = Some(copy);
                }
            }
        }
        let slots = slots.into_iter();
        Ok(Held {
            globals,
            slots: slots
                .map(|(slot, (_, parts))| (slot, SlotDescriptors::from_parts(parts)))
                .collect(),
        })
    }
}

/// systemd's store.
#[derive(Debug)]
pub struct SystemdStore {
    manager: Socket,
    held: Mutex<Option<Held>>,
    contents: Mutex<Contents>,
    /// Named descriptors that were not taken.
    failing: Mutex<BTreeSet<GlobalName>>,
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
        let passed = environment.passed.iter().map(String::as_str);
        let contents = Contents::new(environment.descriptors_max, passed);
        Ok(Self {
            manager,
            contents: Mutex::new(contents),
            held: Mutex::new(Some(held)),
            failing: Mutex::default(),
        })
    }

    fn put(
        &self,
        name: &str,
        descriptor: BorrowedFd<'_>,
        until: Instant,
    ) -> Result<(), StoreError> {
        // FDPOLL=0: else systemd drops a socket whose peer has hung up, with what is queued in it.
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
        self.notify(&text, &[descriptor], until)
    }

    fn remove(&self, name: &str, until: Instant) -> Result<(), StoreError> {
        self.notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[], until)
    }

    /// Sends one datagram, where systemd's queue has room for it until then.
    fn notify(
        &self,
        text: &str,
        descriptors: &[BorrowedFd<'_>],
        until: Instant,
    ) -> Result<(), StoreError> {
        loop {
            let bytes = text.as_bytes();
            let sent = channel::send_bytes(&self.manager, bytes, descriptors, Patience::None);
            let left = until.saturating_duration_since(Instant::now());
            match sent {
                Ok(()) => return Ok(()),
                Err(error) if !is_full(&error) || left.is_zero() => {
                    return Err(StoreError::system("sendmsg to NOTIFY_SOCKET")(error));
                }
                // Its queue is full, or too many descriptors are under way, of which no poll tells.
                Err(_) => std::thread::sleep(KEEPER_NO_ROOM_POLL_INTERVAL.min(left)),
            }
        }
    }

    fn remove_slot(&self, slot: Slot, naming: Naming, until: Instant) -> Result<(), StoreError> {
        // A version that knows only the former names may have come after one that wrote the others.
        let former = (naming == Naming::Former).then(|| slot_names(slot, naming));
        let mut names = former
            .into_iter()
            .flatten()
            .chain(slot_names(slot, Naming::Short));
        names.try_for_each(|name| self.remove(&name, until))
    }

    /// Removes what there may be of a slot. It counts as long as systemd has not been told: else
    /// another one would be put there before this one is gone.
    fn vacate(&self, slot: Slot, until: Instant) -> Result<(), StoreError> {
        let naming = lock(&self.contents).begin_removal(slot);
        let Some(naming) = naming else {
            return Ok(());
        };
        let result = self.remove_slot(slot, naming, until);
        let mut contents = lock(&self.contents);
        match result {
            Ok(()) => contents.removed_slot(slot),
            Err(_) => contents.is_wrong(slot),
        }
        result
    }

    /// Removes what should not be there, as far as systemd takes it now.
    fn make_up(&self, contents: &mut Contents) {
        let now = Instant::now();
        while let Some((slot, naming)) = contents.first_wrong() {
            if self.remove_slot(slot, naming, now).is_err() {
                break;
            }
            contents.removed_slot(slot);
        }
        contents.look_at_refused();
    }

    fn note(&self, name: &GlobalName, result: &Result<(), StoreError>) {
        match result {
            Ok(()) => lock(&self.failing).remove(name),
            Err(_) => lock(&self.failing).insert(name.clone()),
        };
    }
}

/// When whoever puts or drops something has waited long enough.
fn deadline() -> Instant {
    Instant::now() + KEEPER_PUT_DEADLINE
}

/// A path, or a name in the abstract name space behind an `@`.
fn connect(address: &str) -> io::Result<Socket> {
    let address = match address.strip_prefix('@') {
        Some(name) => SockAddr::unix(format!("\0{name}"))?,
        None => SockAddr::unix(address)?,
    };
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
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
        let (text, until) = (global_name(name), deadline());
        let room = lock(&self.contents).put_global(name);
        let result = room
            .and_then(|()| self.remove(&text, until))
            .and_then(|()| self.put(&text, descriptor, until));
        self.note(name, &result);
        result
    }

    fn drop_global(&self, name: &GlobalName) -> Result<(), StoreError> {
        let result = self.remove(&global_name(name), deadline());
        if result.is_ok() {
            let mut contents = lock(&self.contents);
            contents.removed_global(name);
            contents.look_at_refused();
        }
        self.note(name, &result);
        result
    }

    fn put_slot(
        &self,
        slot: Slot,
        descriptors: &SlotDescriptors<BorrowedFd<'_>>,
    ) -> Result<(), StoreError> {
        let until = deadline();
        self.vacate(slot, until)?;
        let parts = descriptors.parts().into_iter().enumerate();
        let named: Vec<_> = parts
            .filter_map(|(part, descriptor)| Some((slot_name(slot, part), descriptor?)))
            .collect();
        let share = Share::of(named.iter().map(|(name, _)| name.as_str()));
        {
            let mut contents = lock(&self.contents);
            if let Err(full) = contents.put_slot(slot, share) {
                self.make_up(&mut contents);
                return Err(full);
            }
        }
        let mut named = named.iter();
        let result =
            named.try_for_each(|(name, descriptor)| self.put(name, descriptor.as_fd(), until));
        let mut contents = lock(&self.contents);
        match result {
            Ok(()) => self.make_up(&mut contents),
            // A part of it may be there.
            Err(_) => contents.is_wrong(slot),
        }
        result
    }

    fn drop_slot(&self, slot: Slot) -> Result<(), StoreError> {
        self.vacate(slot, deadline())?;
        self.make_up(&mut lock(&self.contents));
        Ok(())
    }

    fn holds_slot(&self, slot: Slot) -> bool {
        lock(&self.contents).holds(slot)
    }

    fn take_all(&self) -> Held {
        lock(&self.held).take().unwrap_or_default()
    }

    fn health(&self) -> Health {
        let contents = lock(&self.contents);
        if let Some(why) = contents.why_full() {
            return Health::Failing(why);
        }
        let working = lock(&self.failing).is_empty() && !contents.has_wrong();
        match !working {
            true => Health::Failing("systemd did not take every descriptor".to_owned()),
            false => Health::Working,
        }
    }

    fn goodbye(&self, _: Farewell) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;
