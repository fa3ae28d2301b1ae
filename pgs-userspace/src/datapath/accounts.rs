//! Accounts: what the kernel counts the bytes of one owner's sessions on.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::RwLock;

use pgs_common::flow::ACCOUNTS_MAX;

/// The account of owners that came when all were taken.
const SHARED: u32 = 0;

/// Which owner has which account; given out once and never again.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_owner: RwLock<HashMap<String, u32>>,
}

impl Accounts {
    /// The owner's account; a new one for a new owner.
    pub(super) fn of(&self, owner: &str) -> u32 {
        if let Some(account) = self.find(owner) {
            return account;
        }
        let mut by_owner = self
            .by_owner
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let next = by_owner.len() as u32 + 1;
        if next == ACCOUNTS_MAX {
            return SHARED;
        }
        *by_owner.entry(owner.to_owned()).or_insert(next)
    }

    /// The owner's account, if it has one.
    pub(super) fn find(&self, owner: &str) -> Option<u32> {
        let by_owner = self.by_owner.read().unwrap_or_else(PoisonError::into_inner);
        by_owner.get(owner).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_keeps_its_account_and_shares_it_with_nobody() {
        let accounts = Accounts::default();
        let first = accounts.of("acme");
        assert_ne!(first, accounts.of("globex"));
        assert_eq!(first, accounts.of("acme"));
        assert_eq!(accounts.find("initech"), None);
    }

    #[test]
    fn when_all_are_taken_the_shared_one_is_left() {
        let accounts = Accounts::default();
        for owner in 1..ACCOUNTS_MAX {
            assert_ne!(accounts.of(&owner.to_string()), SHARED);
        }
        assert_eq!(accounts.of("late"), SHARED);
        assert_eq!(accounts.find("late"), None);
    }
}
