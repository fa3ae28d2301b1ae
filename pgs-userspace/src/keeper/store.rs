//! What can be kept outside the router, and what a place to keep it must do.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use crate::config::limits::KEEPER_NAME_BYTES_MAX;
use crate::config::limits::KEEPER_SLOTS_MAX;

/// The number of a session's place, chosen by whoever puts it there; below [`KEEPER_SLOTS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// None where the number is too large.
    pub fn new(number: u32) -> Option<Self> {
        (number < KEEPER_SLOTS_MAX).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// The name of a descriptor that belongs to no slot, such as `listener.0` or `table`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlobalName(String);

impl GlobalName {
    /// None where a name is empty, too long, or has anything but `a-z`, `0-9`, `.`, `_` and `-`.
    /// A colon would end the name in systemd's `LISTEN_FDNAMES`.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = !name.is_empty()
            && name.len() <= KEEPER_NAME_BYTES_MAX
            && name
                .bytes()
                .all(|byte| allowed(byte) || b"._-".contains(&byte));
        valid.then_some(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GlobalName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The descriptors of one slot.
#[derive(Debug, Default)]
pub struct SlotDescriptors<D> {
    /// The client's connection.
    pub client: Option<D>,
    /// The connection to the tenant's server.
    pub backend: Option<D>,
    /// The private socket: whatever else the session needs to go on.
    pub aside: Option<D>,
}

impl<D> SlotDescriptors<D> {
    /// By part: client, backend, aside.
    pub fn from_parts([client, backend, aside]: [Option<D>; 3]) -> Self {
        Self {
            client,
            backend,
            aside,
        }
    }

    /// By part: client, backend, aside.
    pub fn parts(&self) -> [Option<&D>; 3] {
        [
            self.client.as_ref(),
            self.backend.as_ref(),
            self.aside.as_ref(),
        ]
    }
}

impl<D: AsFd> SlotDescriptors<D> {
    /// The same descriptors, borrowed.
    pub fn borrowed(&self) -> SlotDescriptors<BorrowedFd<'_>> {
        SlotDescriptors::from_parts(self.parts().map(|part| part.map(AsFd::as_fd)))
    }

    /// Descriptors of one's own for the same files.
    pub fn duplicated(&self) -> io::Result<SlotDescriptors<OwnedFd>> {
        let own = |part: Option<&D>| part.map(|one| one.as_fd().try_clone_to_owned()).transpose();
        let [client, backend, aside] = self.parts();
        Ok(SlotDescriptors {
            client: own(client)?,
            backend: own(backend)?,
            aside: own(aside)?,
        })
    }
}

/// Everything that was kept.
#[derive(Debug, Default)]
pub struct Held {
    /// Of no slot.
    pub globals: Vec<(GlobalName, OwnedFd)>,
    /// By slot, each once.
    pub slots: Vec<(Slot, SlotDescriptors<OwnedFd>)>,
}

impl Held {
    /// Takes one named descriptor out.
    pub fn take_global(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.globals.iter().position(|one| one.0.as_str() == name)?;
        Some(self.globals.swap_remove(index).1)
    }
}

/// How a router leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// All sessions have ended: nothing is to be kept.
    Ended,
    /// Another router takes what is kept.
    HandingOver,
}

/// What a store tells the router, from a thread of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another router waits to take over.
    LetGo {
        /// The other's process id.
        process_id: u32,
    },
    /// A new keeper has come in the place of one that is gone, and knows only the named
    /// descriptors: every slot is to be put again.
    Resupply,
    /// The keeper is gone. From here on sessions end with this process, until [`Event::Resupply`].
    Lost(String),
}

/// Whether what is put is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Working,
    /// It is not, or not all of it; why.
    Failing(String),
}

/// Why something was not kept or not given back. No reason to end a session: it goes on, and ends
/// with the router.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no keeper at the moment.
    #[error("there is no keeper at the moment")]
    Gone,
    /// Another router is attached.
    #[error("process {process_id} serves with this run directory")]
    Busy {
        /// Which.
        process_id: u32,
    },
    /// The other router did not let go.
    #[error("process {process_id} did not let go within the deadline")]
    NotLetGo {
        /// Which.
        process_id: u32,
    },
    /// A router was to take over and is not there any more.
    #[error("no router waits to take over")]
    NobodyWaits,
    /// The store takes no more.
    #[error("the store is full: {0}")]
    Full(&'static str),
    /// The keeper speaks otherwise.
    #[error("the keeper answered with {0}")]
    Unexpected(String),
    /// A keeper could not begin.
    #[error("the keeper could not begin: {0}")]
    NotBegun(String),
    /// A system call failed.
    #[error("{call}: {error}")]
    System {
        /// Which.
        call: &'static str,
        /// Why.
        error: io::Error,
    },
}

impl StoreError {
    /// For `map_err`.
    pub(super) fn system(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { call, error }
    }
}

/// Keeps descriptors beyond the life of the router.
///
/// Calls for one slot must come in an order: from one thread at a time. A kept socket is open in
/// two processes, so that `close` alone does not end the connection: call `shutdown` first.
pub trait DescriptorStore: fmt::Debug + Send + Sync {
    /// What it is, for people: `keeper` or `systemd`.
    fn name(&self) -> &'static str;

    /// The process that keeps, where that is one of ours.
    fn process_id(&self) -> Option<u32>;

    /// Whether what is kept stays after [`Farewell::Ended`]: somebody else decides.
    fn keeps_after_the_end(&self) -> bool;

    /// Keeps a descriptor under a name, in place of what had that name.
    ///
    /// # Errors
    /// It is not kept.
    fn put_global(&self, name: &GlobalName, descriptor: BorrowedFd<'_>) -> Result<(), StoreError>;

    /// Lets go of a named descriptor, if there is one.
    ///
    /// # Errors
    /// It may still be kept.
    fn drop_global(&self, name: &GlobalName) -> Result<(), StoreError>;

    /// Keeps the descriptors of a slot, in place of what was there. Waits at most
    /// [`KEEPER_PUT_DEADLINE`](crate::config::limits::KEEPER_PUT_DEADLINE).
    ///
    /// # Errors
    /// They are not kept.
    fn put_slot(
        &self,
        slot: Slot,
        descriptors: &SlotDescriptors<BorrowedFd<'_>>,
    ) -> Result<(), StoreError>;

    /// Lets go of a slot, if there is anything in it. Waits as little as
    /// [`put_slot`](Self::put_slot).
    ///
    /// # Errors
    /// There is no keeper, which then keeps nothing either.
    fn drop_slot(&self, slot: Slot) -> Result<(), StoreError>;

    /// Whether a slot whose put did not fail is kept, as far as is known by now: a keeper that has
    /// no room says so a moment later.
    fn holds_slot(&self, slot: Slot) -> bool;

    /// Everything that was kept when this router came. It stays kept. Given once: the second call
    /// gets nothing.
    fn take_all(&self) -> Held;

    /// Whether what is put is kept.
    fn health(&self) -> Health;

    /// Says that this router leaves.
    ///
    /// # Errors
    /// With [`Farewell::HandingOver`], [`StoreError::NobodyWaits`] says to go on serving.
    fn goodbye(&self, farewell: Farewell) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_systemd_takes() {
        for good in ["listener.0", "table", "map_flows-1"] {
            assert_eq!(GlobalName::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(KEEPER_NAME_BYTES_MAX + 1);
        for bad in ["", "listener:0", "A", "a b", "ä", long.as_str()] {
            assert!(GlobalName::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn slots_are_bounded() {
        assert_eq!(Slot::new(KEEPER_SLOTS_MAX), None);
        assert!(Slot::new(KEEPER_SLOTS_MAX - 1).is_some());
    }
}
