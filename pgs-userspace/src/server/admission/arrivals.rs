//! How many connections of one client address have not said yet what they want; and how many of
//! its logins to one tenant are under way.
//!
//! They are counted exactly, and there are no more entries than arrivals.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Parts with a lock of their own.
const SHARDS: usize = 32;

/// The arrivals of every address that has any, or its logins to each tenant.
#[derive(Debug)]
pub(super) struct Arrivals {
    shards: Vec<Mutex<HashMap<u128, u32>>>,
    hasher: RandomState,
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
        let count = shard.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(ArrivalPlace {
            arrivals: Arc::clone(self),
            address,
        })
    }

    fn shard(&self, address: u128) -> MutexGuard<'_, HashMap<u128, u32>> {
        let index = self.hasher.hash_one(address) as usize % SHARDS;
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ArrivalPlace {
    fn drop(&mut self) {
        let mut shard = self.arrivals.shard(self.address);
        if let Some(count) = shard.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.address);
            }
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
        let empty = |shard: &Mutex<HashMap<_, _>>| shard.lock().unwrap().is_empty();
        assert!(arrivals.shards.iter().all(empty));
    }
}
