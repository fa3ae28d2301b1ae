//! Accounts: what the kernel counts the bytes of one owner's sessions on.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::RwLock;

use pgs_common::flow::ACCOUNTS_MAX;

/// The account of owners that came when all were taken.
const SHARED: u32 = 0;

/// Which owner has which account; given out once and never again.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_owner: HashMap<String, u32>,
    /// Those that owners had under another router.
    restored: HashSet<u32>,
    /// Those on which sessions of another router count, whosever they are.
    named: HashSet<u32>,
    /// Every account up to this one was given out.
    last: u32,
}

impl Accounts {
    /// With these left out, which sessions in the maps of another router name: some of those stay
    /// with that one, and nobody says here whose they are.
    pub(super) fn beside(named: HashSet<u32>) -> Self {
        let known = Known {
            named,
            ..Known::default()
        };
        Self {
            known: RwLock::new(known),
        }
    }

    /// The owner's account; a new one for a new owner.
    pub(super) fn of(&self, owner: &str) -> u32 {
        if let Some(account) = self.find(owner) {
            return account;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = known.by_owner.get(owner) {
            return *account;
        }
        let taken =
            |account: &u32| known.restored.contains(account) || known.named.contains(account);
        let free = (known.last + 1..ACCOUNTS_MAX).find(|account| !taken(account));
        let Some(account) = free else {
            known.last = ACCOUNTS_MAX;
            return SHARED;
        };
        known.last = account;
        known.by_owner.insert(owner.to_owned(), account);
        account
    }

    /// The owner has had this account under another router.
    pub(super) fn restore(&self, owner: &str, account: u32) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if account != SHARED && known.restored.insert(account) {
            known.by_owner.entry(owner.to_owned()).or_insert(account);
        }
    }

    /// Every owner that has one, and which.
    pub(super) fn all(&self) -> Vec<(String, u32)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let by_owner = known.by_owner.iter();
        by_owner
            .map(|(owner, account)| (owner.clone(), *account))
            .collect()
    }

    /// The owner's account, if it has one.
    fn find(&self, owner: &str) -> Option<u32> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_owner.get(owner).copied()
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
    fn an_account_of_another_router_is_its_owners_still() {
        let accounts = Accounts::default();
        accounts.restore("acme", 1);
        assert_eq!(accounts.of("globex"), 2);
        assert_eq!(accounts.of("acme"), 1);
    }

    #[test]
    fn an_account_that_a_session_elsewhere_names_is_given_to_nobody_else() {
        let accounts = Accounts::beside(HashSet::from([1, 2]));
        accounts.restore("acme", 2);
        assert_eq!(accounts.of("globex"), 3);
        assert_eq!(accounts.of("acme"), 2);
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
