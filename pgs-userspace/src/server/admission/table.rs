//! What is remembered of many strangers in memory that does not grow.
//!
//! The table is made of sets of a few places each; a key's hash, under a secret of this process,
//! says which set it belongs to. Where a set is full, the entry with the least to remember gives
//! way. Whoever has used up an allowance is therefore the last to be forgotten: to be forgotten
//! sooner he would need, in his own set, which he cannot know, several others that have used up
//! more.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::config::limits::REMEMBERED_ENTRIES_MAX;

/// Places of one set: what is looked through for each key, within a few cache lines.
const WAYS: usize = 8;

/// Sets with a lock of their own; two that come at once rarely meet on one.
const SHARDS: usize = 64;

/// Sets of one shard.
const SETS: usize = REMEMBERED_ENTRIES_MAX / WAYS / SHARDS;

/// What is remembered of one key. The default is what holds for somebody who is not known.
pub(super) trait Memory: Copy + Default + Send {
    /// Whether it holds no more than the default does.
    fn is_empty(&self, now: Duration) -> bool;

    /// How much there is to remember; the least of it is forgotten first.
    fn weight(&self) -> u64;
}

/// A table of as many entries as [`REMEMBERED_ENTRIES_MAX`]. Times are since its beginning.
#[derive(Debug)]
pub(super) struct Table<M> {
    shards: Vec<Mutex<Vec<Set<M>>>>,
    hasher: RandomState,
    forgotten: AtomicU64,
}

type Set<M> = [Place<M>; WAYS];

/// The key is zero where nobody is.
#[derive(Debug, Clone, Copy, Default)]
struct Place<M> {
    key: u128,
    memory: M,
}

impl<M: Memory> Table<M> {
    pub(super) fn new() -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            hasher: RandomState::new(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Looks at what is remembered of a key, and changes it. `act` is called under a lock, so it
    /// must be short.
    pub(super) fn with<R>(&self, key: u128, now: Duration, act: impl FnOnce(&mut M) -> R) -> R {
        // The key of an empty place is nobody's.
        let key = key.max(1);
        let hash = self.hasher.hash_one(key) as usize;
        let shard = &self.shards[hash % SHARDS];
        // No code under this lock can leave a set half-changed.
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.is_empty() {
            // Not before somebody is to be remembered: most shards of most tables stay empty.
            sets.resize(SETS, Set::<M>::default());
        }
        let set = &mut sets[hash / SHARDS % SETS];
        let index = match set.iter().position(|place| place.key == key) {
            Some(index) => index,
            None => {
                let index = Self::to_give_way(set, now);
                if set[index].key != 0 && !set[index].memory.is_empty(now) {
                    self.forgotten.fetch_add(1, Relaxed);
                }
                let memory = M::default();
                set[index] = Place { key, memory };
                index
            }
        };
        let memory = &mut set[index].memory;
        let result = act(memory);
        if memory.is_empty(now) {
            set[index] = Place::default();
        }
        result
    }

    fn to_give_way(set: &Set<M>, now: Duration) -> usize {
        let weight = |place: &Place<M>| match place {
            Place { key: 0, .. } => 0,
            Place { memory, .. } if memory.is_empty(now) => 0,
            Place { memory, .. } => memory.weight().max(1),
        };
        let lightest = set
            .iter()
            .enumerate()
            .min_by_key(|(_, place)| weight(place));
        lightest.map_or(0, |(index, _)| index)
    }

    /// How many were forgotten before their time.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// A key for two things together.
    pub(super) fn key_of(&self, parts: impl std::hash::Hash) -> u128 {
        let half = |number: u8| u128::from(self.hasher.hash_one((number, &parts)));
        half(0) << 64 | half(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers a number until a time.
    #[derive(Debug, Clone, Copy, Default)]
    struct Until {
        number: u64,
        end: Duration,
    }

    impl Memory for Until {
        fn is_empty(&self, now: Duration) -> bool {
            self.end <= now
        }

        fn weight(&self) -> u64 {
            self.number
        }
    }

    const NOW: Duration = Duration::from_secs(1);

    fn remember(table: &Table<Until>, key: u128, number: u64) {
        table.with(key, NOW, |until| {
            until.number = number;
            until.end = NOW * 2;
        });
    }

    fn number(table: &Table<Until>, key: u128, now: Duration) -> u64 {
        table.with(key, now, |until| until.number)
    }

    #[test]
    fn what_has_ended_leaves_its_place() {
        let table = Table::new();
        remember(&table, 7, 3);
        assert_eq!(number(&table, 7, NOW), 3);
        table.with(7, NOW * 2, |_| ());
        let taken = |place: &Place<Until>| place.key != 0;
        let shards = table.shards.iter();
        let places = shards.flat_map(|shard| shard.lock().unwrap().concat());
        assert_eq!(places.filter(taken).count(), 0);
    }

    #[test]
    fn a_flood_of_strangers_does_not_make_the_table_forget_who_has_most_to_remember() {
        let table = Table::new();
        remember(&table, 1, 1_000);
        let strangers = 2..20 * REMEMBERED_ENTRIES_MAX as u128;
        for stranger in strangers {
            remember(&table, stranger, 1);
        }
        assert_eq!(number(&table, 1, NOW), 1_000);
        assert!(table.forgotten() > REMEMBERED_ENTRIES_MAX as u64);
    }

    #[test]
    fn the_table_has_as_many_places_as_were_promised() {
        let table = Table::new();
        for key in 1..10_000 {
            remember(&table, key, 1);
        }
        let places: usize = table
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().len() * WAYS)
            .sum();
        assert_eq!(places, REMEMBERED_ENTRIES_MAX);
    }

    #[test]
    fn many_threads_lose_nothing() {
        let table = Table::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..10_000_u128 {
                        table.with(turn % 100 + 1, NOW, |until: &mut Until| {
                            until.number += 1;
                            until.end = NOW * 2;
                        });
                    }
                });
            }
        });
        let all: u64 = (1..=100).map(|key| number(&table, key, NOW)).sum();
        assert_eq!(all, 40_000);
    }
}
