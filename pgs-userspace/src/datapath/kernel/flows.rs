//! The flows of all sessions and the accounts, in the router's memory: counters are read without a
//! system call.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use nix::time::ClockId;
use nix::time::clock_gettime;
use pgs_common::flow;
use pgs_common::flow::BROKEN;
use pgs_common::flow::KERNEL;
use pgs_common::flow::RELAY;

use super::KernelPathError;
use super::mapping::Mapping;
use super::mapping::Shared;
use super::place::Look;
use super::place::Place;
use super::place::Unreceived;
use crate::datapath::direction::Direction;

/// [`flow::Orders`], every field atomic.
#[repr(C, align(64))]
#[derive(Debug)]
struct Orders {
    source: AtomicU64,
    target: AtomicU64,
    aside: AtomicU64,
    forwarded: AtomicU64,
    mode: AtomicU32,
    account: AtomicU32,
    listening: AtomicU32,
    in_hand: AtomicU32,
    answer: AtomicU32,
    answers: AtomicU32,
    /// `reserved` there: the name is part of the eBPF object.
    relayed: AtomicU64,
}

/// [`flow::Record`], every field atomic.
#[repr(C, align(64))]
#[derive(Debug)]
struct Record {
    diverted: AtomicU64,
    redirected: AtomicU64,
    run_starts: [AtomicU64; 2],
    active_seconds: AtomicU64,
    waiting: AtomicU32,
    turn_bytes: AtomicU32,
    diversions: AtomicU32,
    run: AtomicU32,
    origin: AtomicU64,
}

#[repr(C, align(64))]
#[derive(Debug)]
struct Flow {
    orders: Orders,
    record: Record,
}

#[repr(C)]
#[derive(Debug)]
struct Account {
    to_backend: AtomicU64,
    to_client: AtomicU64,
}

macro_rules! same_layout {
    ($ours:ty, $theirs:ty: $($field:ident),+) => {
        const _: () = {
            assert!(size_of::<$ours>() == size_of::<$theirs>());
            $(assert!(
                std::mem::offset_of!($ours, $field) == std::mem::offset_of!($theirs, $field)
            );)+
        };
    };
}
same_layout!(Orders, flow::Orders:
    source, target, aside, forwarded, mode, account, listening, in_hand, answer, answers);
const _: () =
    assert!(std::mem::offset_of!(Orders, relayed) == std::mem::offset_of!(flow::Orders, reserved));
same_layout!(Record, flow::Record:
    diverted, redirected, run_starts, active_seconds, waiting, turn_bytes, diversions, run, origin);
same_layout!(Flow, flow::Flow: orders, record);
same_layout!(Account, flow::Account: to_backend, to_client);

#[expect(unsafe_code, reason = "a promise about layout")]
// SAFETY: atomics only, and the layouts are compared above.
unsafe impl Shared for Flow {}
#[expect(unsafe_code, reason = "a promise about layout")]
// SAFETY: as above.
unsafe impl Shared for Account {}

/// What a new flow is told. See [`flow::Orders`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) source: u64,
    pub(super) target: u64,
    pub(super) aside: u64,
    pub(super) account: u32,
}

/// Bytes that went through the kernel alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelBytes {
    /// From clients to backends.
    pub to_backend: u64,
    /// From backends to clients.
    pub to_client: u64,
}

/// All flows and accounts. Places are given out by their owner, so that each has one writer here.
#[derive(Debug)]
pub(in crate::datapath) struct FlowTable {
    flows: Mapping<Flow>,
    accounts: Mapping<Account>,
}

impl FlowTable {
    /// Maps both arrays.
    pub(super) fn map(
        flows: BorrowedFd<'_>,
        accounts: BorrowedFd<'_>,
    ) -> Result<Self, KernelPathError> {
        Ok(Self {
            flows: Mapping::new(flows, flow::FLOWS_MAX)?,
            accounts: Mapping::new(accounts, flow::ACCOUNTS_MAX)?,
        })
    }

    fn orders(&self, place: Place, direction: Direction) -> &Orders {
        &self.flows.entry(place.flow(direction)).orders
    }

    fn record(&self, place: Place, direction: Direction) -> &Record {
        &self.flows.entry(place.flow(direction)).record
    }

    /// Makes a fresh flow in mode [`RELAY`]. Call it only while no source leads to it.
    pub(super) fn begin(&self, place: Place, direction: Direction, route: Route) {
        let record = self.record(place, direction);
        for counter in [
            &record.diverted,
            &record.redirected,
            &record.run_starts[0],
            &record.run_starts[1],
        ] {
            counter.store(0, Relaxed);
        }
        for counter in [
            &record.waiting,
            &record.turn_bytes,
            &record.diversions,
            &record.run,
        ] {
            counter.store(0, Relaxed);
        }
        record.active_seconds.store(coarse_seconds(), Relaxed);
        record.origin.store(0, Relaxed);
        let orders = self.orders(place, direction);
        orders.forwarded.store(0, Relaxed);
        orders.mode.store(RELAY, Relaxed);
        orders.account.store(route.account, Relaxed);
        orders.listening.store(0, Relaxed);
        orders.in_hand.store(0, Relaxed);
        orders.relayed.store(0, Relaxed);
        orders.target.store(route.target, Release);
        orders.aside.store(route.aside, Release);
        orders.source.store(route.source, Release);
    }

    /// From here on no verdict takes this flow's target.
    pub(super) fn end(&self, place: Place, direction: Direction) {
        self.orders(place, direction).source.store(0, Release);
    }

    /// Cookie by which the verdict finds this flow; 0 where no session has it.
    pub(super) fn source(&self, place: Place, direction: Direction) -> u64 {
        self.orders(place, direction).source.load(Acquire)
    }

    /// Keys of the socket that the bytes are redirected to, and of the private one.
    pub(super) fn targets(&self, place: Place, direction: Direction) -> (u64, u64) {
        let orders = self.orders(place, direction);
        (orders.target.load(Acquire), orders.aside.load(Acquire))
    }

    /// Diverted bytes that were written on, unless a router had some in its hand.
    pub(super) fn forwarded(&self, place: Place, direction: Direction) -> Option<u64> {
        let orders = self.orders(place, direction);
        let forwarded = orders.forwarded.load(Acquire);
        (orders.in_hand.load(Acquire) == 0).then_some(forwarded)
    }

    /// Numbers of the places that sessions have.
    pub(in crate::datapath) fn taken(&self) -> impl Iterator<Item = u32> + '_ {
        (0..flow::SESSIONS_MAX).filter(|place| self.source(Place(*place), Direction::ToClient) != 0)
    }

    /// The account of a live session.
    pub(in crate::datapath) fn account(&self, place: Place) -> u32 {
        self.orders(place, Direction::ToClient)
            .account
            .load(Acquire)
    }

    /// The accounts on which live sessions count. All others are begun anew: whose they were is not
    /// known. Only while no other router enrols.
    pub(in crate::datapath) fn begin_unused_accounts(&self) -> HashSet<u32> {
        let taken = self.taken().map(Place);
        let named: HashSet<u32> = taken.map(|place| self.account(place)).collect();
        for account in (0..flow::ACCOUNTS_MAX).filter(|account| !named.contains(account)) {
            let account = self.accounts.entry(account);
            account.to_backend.store(0, Relaxed);
            account.to_client.store(0, Relaxed);
        }
        named
    }

    /// Lets the verdict redirect, from the next bytes on.
    pub(super) fn open(&self, place: Place, direction: Direction) {
        self.orders(place, direction).mode.store(KERNEL, Release);
    }

    /// Changes what the verdict, or another router, is to do with the bytes.
    pub(super) fn set_mode(&self, place: Place, direction: Direction, mode: u32) {
        self.orders(place, direction).mode.store(mode, SeqCst);
    }

    /// What [`Self::set_mode`] set last.
    pub(super) fn mode(&self, place: Place, direction: Direction) -> u32 {
        self.orders(place, direction).mode.load(SeqCst)
    }

    /// Whether the verdict may redirect.
    pub(super) fn is_open(&self, place: Place, direction: Direction) -> bool {
        self.orders(place, direction).mode.load(Acquire) == KERNEL
    }

    /// The mode, bytes diverted and forwarded, and of the present turn: for a test that fails.
    #[cfg(test)]
    pub(in crate::datapath) fn state(&self, place: Place, direction: Direction) -> [u64; 4] {
        let (orders, record) = (self.orders(place, direction), self.record(place, direction));
        [
            u64::from(orders.mode.load(SeqCst)),
            record.diverted.load(SeqCst),
            orders.forwarded.load(SeqCst),
            u64::from(record.turn_bytes.load(SeqCst)),
        ]
    }

    /// Says that so many of the diverted bytes are written to the target. Before the next look at
    /// [`Self::unreceived`], on every processor: the verdict counts first and looks at this
    /// afterwards, and one of the two has to see the other, or nobody tells of what comes now.
    pub(super) fn publish_forwarded(&self, place: Place, direction: Direction, bytes: u64) {
        self.orders(place, direction).forwarded.store(bytes, SeqCst);
    }

    /// Says that the router holds nothing any more. Only after [`Self::publish_forwarded`]: a
    /// router that is killed between the two leaves a session that ends, and not one whose bytes
    /// are counted wrongly.
    pub(super) fn let_go(&self, place: Place, direction: Direction) {
        self.orders(place, direction).in_hand.store(0, Release);
    }

    /// Says that the router holds bytes which only it knows.
    pub(super) fn take_in_hand(&self, place: Place, direction: Direction) {
        self.orders(place, direction).in_hand.store(1, Release);
    }

    /// What [`Self::set_relayed`] set last, also under another router.
    pub(in crate::datapath) fn relayed(&self, place: Place, direction: Direction) -> u64 {
        self.orders(place, direction).relayed.load(Acquire)
    }

    /// Says how many bytes of the session in all routers have moved, for a router that comes after.
    pub(in crate::datapath) fn set_relayed(&self, place: Place, direction: Direction, bytes: u64) {
        let orders = self.orders(place, direction);
        orders.relayed.store(bytes, Release);
    }

    /// Where the diverted bytes behind the first `received` are, and how many are there.
    pub(super) fn unreceived(
        &self,
        place: Place,
        direction: Direction,
        received: u64,
    ) -> Unreceived {
        let record = self.record(place, direction);
        // In this order.
        Unreceived::at_rest(received, || Look {
            run: record.run.load(SeqCst),
            run_starts: record.run_starts.each_ref().map(|start| start.load(SeqCst)),
            diverted: record.diverted.load(SeqCst),
            run_behind: record.run.load(SeqCst),
        })
    }

    /// Bytes that the verdict has seen.
    pub(super) fn judged(&self, place: Place, direction: Direction) -> u64 {
        let record = self.record(place, direction);
        record.redirected.load(SeqCst) + record.diverted.load(SeqCst)
    }

    /// Bytes that were redirected.
    pub(super) fn redirected(&self, place: Place, direction: Direction) -> u64 {
        self.record(place, direction).redirected.load(Acquire)
    }

    /// Says whether the router listens for diverted bytes. Look at [`Self::unreceived`] again after
    /// it was set to false: of bytes from before there may have been no notice.
    pub(super) fn set_listening(&self, place: Place, direction: Direction, listens: bool) {
        self.orders(place, direction)
            .listening
            .store(u32::from(listens), SeqCst);
    }

    /// Bytes of the present turn, or more than the bound.
    pub(super) fn turn_bytes(&self, place: Place, direction: Direction) -> u32 {
        self.record(place, direction).turn_bytes.load(Acquire)
    }

    /// The other side has had bytes of its own that no verdict has seen.
    pub(super) fn begin_turn(&self, place: Place, direction: Direction) {
        self.record(place, direction).turn_bytes.store(0, Release);
    }

    /// Whether the verdict had to drop bytes.
    pub(super) fn is_broken(&self, place: Place, direction: Direction) -> bool {
        self.record(place, direction).diversions.load(Acquire) & BROKEN != 0
    }

    /// The probe's last answer, and how many it has given.
    pub(super) fn answer(&self, place: Place, direction: Direction) -> (u32, u32) {
        let orders = self.orders(place, direction);
        (orders.answer.load(Acquire), orders.answers.load(Acquire))
    }

    /// Times that bytes of a live session began to come to the router.
    pub(in crate::datapath) fn diversions(&self, place: Place) -> u32 {
        Direction::BOTH
            .iter()
            .map(|direction| self.record(place, *direction).diversions.load(Relaxed) & !BROKEN)
            .sum()
    }

    /// So many in each direction.
    #[cfg(test)]
    pub(in crate::datapath) fn set_diversions(&self, place: Place, each: u32) {
        for direction in Direction::BOTH {
            self.record(place, direction)
                .diversions
                .store(each, Relaxed);
        }
    }

    /// Bytes of a live session that went through the kernel alone.
    pub(in crate::datapath) fn bytes(&self, place: Place) -> KernelBytes {
        KernelBytes {
            to_backend: self.redirected(place, Direction::ToBackend),
            to_client: self.redirected(place, Direction::ToClient),
        }
    }

    /// Bytes of all sessions of an account that went through the kernel alone.
    pub(in crate::datapath) fn account_bytes(&self, account: u32) -> KernelBytes {
        let account = self.accounts.entry(account);
        KernelBytes {
            to_backend: account.to_backend.load(Relaxed),
            to_client: account.to_client.load(Relaxed),
        }
    }

    /// Time since a live session last had a byte, in either direction, in whole seconds.
    pub(in crate::datapath) fn idle(&self, place: Place) -> Duration {
        let last = Direction::BOTH
            .iter()
            .map(|direction| self.record(place, *direction).active_seconds.load(Relaxed))
            .max()
            .unwrap_or(0);
        Duration::from_secs(coarse_seconds().saturating_sub(last))
    }
}

/// What the verdict program reads as well.
fn coarse_seconds() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |time| u64::try_from(time.tv_sec()).unwrap_or(0))
}
