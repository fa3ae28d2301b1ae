//! A tenant's id, valid by construction.

use std::fmt;
use std::str::FromStr;

use crate::config::limits::TENANT_ID_BYTES_MAX;
use crate::tenant::reserved;
use crate::tenant::reserved::Reserved;

/// The rule that every id keeps, in words.
pub const RULE: &str = "a tenant id starts with a lower-case letter, goes on with lower-case \
     letters, digits and `_`, and has at most 63 characters, so that it can be a role, a database, \
     a container and a directory without quotes";

/// A tenant's id: an unquoted role and database name of PostgreSQL, part of a container's and a
/// volume's name, and a directory's name.
///
/// `[a-z][a-z0-9_]{0,62}`, and none of the names that PostgreSQL keeps for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(String);

/// Why a text is no tenant id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTenantId {
    /// Nothing was given.
    #[error("a tenant id cannot be empty")]
    Empty,
    /// Longer than a role name may be.
    #[error("tenant id is {bytes} bytes long, at most {TENANT_ID_BYTES_MAX} fit a role name")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The first character is not a lower-case letter.
    #[error("`{id}` cannot be a tenant id: it starts with {first:?}, not a lower-case letter")]
    Start {
        /// What was given, control characters escaped.
        id: String,
        /// Its first character.
        first: char,
    },
    /// A later character is not a lower-case letter, digit or `_`.
    #[error("`{id}` cannot be a tenant id: {found:?} is no lower-case letter, digit or `_`")]
    Character {
        /// What was given, control characters escaped.
        id: String,
        /// The first character that does not fit.
        found: char,
    },
    /// A name that PostgreSQL keeps for itself.
    #[error("`{id}` cannot be a tenant id: {reason}")]
    Reserved {
        /// What was given.
        id: String,
        /// Whose name it is.
        reason: Reserved,
    },
}

impl TenantId {
    /// The one way to make a tenant id from outside text.
    ///
    /// # Errors
    /// The first part of the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidTenantId> {
        if text.len() > TENANT_ID_BYTES_MAX {
            return Err(InvalidTenantId::TooLong { bytes: text.len() });
        }
        let mut characters = text.chars();
        let first = characters.next().ok_or(InvalidTenantId::Empty)?;
        if !first.is_ascii_lowercase() {
            return Err(InvalidTenantId::Start {
                id: escaped(text),
                first,
            });
        }
        let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_';
        if let Some(found) = characters.find(|c| !fits(c)) {
            return Err(InvalidTenantId::Character {
                id: escaped(text),
                found,
            });
        }
        match reserved::reason(text) {
            Some(reason) => Err(InvalidTenantId::Reserved {
                id: text.to_owned(),
                reason,
            }),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InvalidTenantId {
    /// The way out: the rule, or another name.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Reserved { .. } => "choose another name, such as `acme`",
            _ => RULE,
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenantId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// An error message reaches a terminal: no control character may act there.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_debug().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_what_needs_no_quotes_anywhere() {
        for id in ["a", "acme", "acme_2", "a1", "x_", &"a".repeat(63)] {
            assert_eq!(TenantId::parse(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn names_the_part_of_the_rule_that_is_broken() {
        assert_eq!(TenantId::parse(""), Err(InvalidTenantId::Empty));
        assert_eq!(
            TenantId::parse(&"a".repeat(64)),
            Err(InvalidTenantId::TooLong { bytes: 64 })
        );
        for id in ["Acme", "1a", "_a", "-a", ".", "..", " a", "é", "/etc"] {
            let error = TenantId::parse(id).unwrap_err();
            assert!(
                matches!(error, InvalidTenantId::Start { .. }),
                "{id}: {error}"
            );
        }
        for id in [
            "a-b", "a.b", "a b", "a/b", "aB", "a\0", "aé", "a'; drop", "a\n",
        ] {
            let error = TenantId::parse(id).unwrap_err();
            assert!(
                matches!(error, InvalidTenantId::Character { .. }),
                "{id}: {error}"
            );
        }
    }

    #[test]
    fn refuses_the_names_that_postgresql_keeps() {
        for id in [
            "postgres",
            "template0",
            "template1",
            "pg_x",
            "public",
            "none",
            "replication",
        ] {
            let error = TenantId::parse(id).unwrap_err();
            assert!(
                matches!(error, InvalidTenantId::Reserved { .. }),
                "{id}: {error}"
            );
        }
        for id in ["all", "user", "select", "sameuser", "join"] {
            assert!(
                matches!(TenantId::parse(id), Err(InvalidTenantId::Reserved { .. })),
                "{id}"
            );
        }
    }

    #[test]
    fn an_error_carries_no_control_character() {
        let error = TenantId::parse("\u{1b}[31mred").unwrap_err();
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }

    proptest! {
        #[test]
        fn every_accepted_text_keeps_the_rule(text in ".{0,70}") {
            if let Ok(id) = TenantId::parse(&text) {
                prop_assert!(!id.as_str().is_empty() && id.as_str().len() <= 63);
                prop_assert!(id.as_str().bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()));
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
