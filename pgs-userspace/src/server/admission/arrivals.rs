//! How many connections of one client address have not said yet what they want; and how many of
//! its logins to one tenant are under way.
//!
//! They are counted exactly, and there are no more entries than arrivals. Whoever waits for a place
//! gets it in the order of coming.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::oneshot;

/// Parts with a lock of their own.
const SHARDS: usize = 32;

/// The arrivals of every address that has any, or its logins to each tenant.
#[derive(Debug)]
pub(super) struct Arrivals {
    shards: Vec<Mutex<HashMap<u128, Entry>>>,
    hasher: RandomState,
}

/// Of one address.
#[derive(Debug, Default)]
struct Entry {
    count: u32,
    /// Who came first is at the front; who has gone may still be among them.
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    /// The bound when it came.
    max: u32,
    place: oneshot::Sender<ArrivalPlace>,
}

impl Entry {
    /// Counts one more if there is room, and nobody waits for it.
    fn enter_in_turn(&mut self, max: u32) -> bool {
        let turn = self.count < max && self.waiting.iter().all(|one| one.place.is_closed());
        self.count += u32::from(turn);
        turn
    }

    /// The first who waits, counted already; none where nobody does, or there is no room.
    fn next(&mut self) -> Option<Waiter> {
        while self.waiting.front()?.place.is_closed() {
            self.waiting.pop_front();
        }
        let next = self.waiting.pop_front_if(|first| self.count < first.max)?;
        self.count += 1;
        Some(next)
    }
}

/// A place among them, given back when this is dropped.
#[derive(Debug)]
pub(in crate::server) struct ArrivalPlace {
    arrivals: Arc<Arrivals>,
    address: u128,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Arrivals {
    /// A place, if the address has one left of so many.
    pub(super) fn enter(self: &Arc<Self>, address: u128, max: u32) -> Option<ArrivalPlace> {
        let mut shard = self.shard(address);
        let entry = shard.entry(address).or_default();
        if entry.count >= max {
            return None;
        }
        entry.count += 1;
        drop(shard);
        Some(self.place(address))
    }

    /// The same, unless somebody waits for it.
    pub(super) fn enter_in_turn(self: &Arc<Self>, address: u128, max: u32) -> Option<ArrivalPlace> {
        let entered = self
            .shard(address)
            .entry(address)
            .or_default()
            .enter_in_turn(max);
        entered.then(|| self.place(address))
    }

    /// A place behind all that wait already. An error comes back where nobody gets one any more.
    pub(super) fn wait(
        self: &Arc<Self>,
        address: u128,
        max: u32,
    ) -> oneshot::Receiver<ArrivalPlace> {
        let (place, waits) = oneshot::channel();
        let mut shard = self.shard(address);
        let entry = shard.entry(address).or_default();
        entry.waiting.retain(|one| !one.place.is_closed());
        if entry.enter_in_turn(max) {
            drop(shard);
            // The other end is here.
            drop(place.send(self.place(address)));
        } else {
            entry.waiting.push_back(Waiter { max, place });
        }
        waits
    }

    /// Whoever waits is told that there will be no place.
    pub(super) fn send_waiting_away(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values_mut().for_each(|entry| entry.waiting.clear());
        }
    }

    /// One that is counted already.
    fn place(self: &Arc<Self>, address: u128) -> ArrivalPlace {
        ArrivalPlace {
            arrivals: Arc::clone(self),
            address,
        }
    }

    fn shard(&self, address: u128) -> MutexGuard<'_, HashMap<u128, Entry>> {
        let index = self.hasher.hash_one(address) as usize % SHARDS;
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ArrivalPlace {
    fn drop(&mut self) {
        let mut shard = self.arrivals.shard(self.address);
        let Some(entry) = shard.get_mut(&self.address) else {
            return;
        };
        entry.count -= 1;
        let next = entry.next();
        if entry.count == 0 {
            shard.remove(&self.address);
        }
        drop(shard);
        if let Some(next) = next {
            // Should it just have gone, the place is dropped here, and so passed on.
            drop(next.place.send(self.arrivals.place(self.address)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_full_keeps_no_other_out_and_nothing_stays_behind() {
        let arrivals = Arc::new(Arrivals::default());
        let places: Vec<_> = [7, 7].map(|address| arrivals.enter(address, 2)).into();
        assert!(places.iter().all(Option::is_some));
        assert!(arrivals.enter(7, 2).is_none());
        assert!(arrivals.enter(8, 2).is_some());
        drop(places);
        assert!(arrivals.enter(7, 2).is_some());
        assert!(is_empty(&arrivals));
    }

    fn is_empty(arrivals: &Arrivals) -> bool {
        let empty = |shard: &Mutex<HashMap<_, _>>| shard.lock().unwrap().is_empty();
        arrivals.shards.iter().all(empty)
    }

    #[test]
    fn who_waits_gets_its_place_in_the_order_of_coming() {
        let arrivals = Arc::new(Arrivals::default());
        let mut held = arrivals.enter_in_turn(7, 1);
        let mut waits = [7; 4].map(|address| arrivals.wait(address, 1));
        for next in 0..waits.len() {
            drop(held);
            assert!(
                arrivals.enter_in_turn(7, 1).is_none(),
                "one that comes now overtakes number {next}"
            );
            let places = waits.each_mut().map(|one| one.try_recv().ok());
            let got = places.iter().position(Option::is_some);
            assert_eq!(got, Some(next));
            held = places.into_iter().flatten().next();
        }
        drop(held);
        assert!(is_empty(&arrivals));
    }

    #[test]
    fn who_has_gone_passes_its_turn_on() {
        let arrivals = Arc::new(Arrivals::default());
        let held = arrivals.enter_in_turn(7, 1);
        let [gone, told, mut last] = [7; 3].map(|address| arrivals.wait(address, 1));
        drop(gone);
        drop(held);
        // It has the place and does not know yet.
        drop(told);
        let place = last.try_recv();
        assert!(place.is_ok());
        let too_late = arrivals.wait(7, 1);
        drop(too_late);
        drop(place);
        assert!(arrivals.enter_in_turn(7, 1).is_some());
        assert!(is_empty(&arrivals));
    }

    #[test]
    fn who_is_sent_away_knows_it() {
        let arrivals = Arc::new(Arrivals::default());
        let held = arrivals.enter_in_turn(7, 1);
        let mut waits = arrivals.wait(7, 1);
        arrivals.send_waiting_away();
        assert_eq!(
            waits.try_recv().unwrap_err(),
            oneshot::error::TryRecvError::Closed
        );
        drop(held);
        assert!(is_empty(&arrivals));
    }
}
