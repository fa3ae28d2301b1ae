//! Sections of the configuration: named keys, each with how it is written and what it is for.
//!
//! One table for each section is all there is: the file is read by it, `pgs config show` prints it,
//! and `docs/configuration.md` is checked against it.

use crate::config::value::nearest;

/// One key of a section `S`.
#[derive(Debug)]
pub struct Key<S: 'static> {
    /// As it is written.
    pub name: &'static str,
    /// How its value is written.
    pub form: &'static str,
    /// What it is for.
    pub summary: &'static str,
    /// Whether a change counts for a router that was started anew, and not before.
    pub restart: bool,
    /// Takes a value over from text.
    pub assign: fn(&mut S, &str) -> Result<(), String>,
    /// The value as text.
    pub text: fn(&S) -> String,
}

/// A key whose value is a field of the same name; with `restart` before it, one whose change a
/// running router cannot take over.
#[macro_export]
#[doc(hidden)]
macro_rules! key {
    ($field:ident: $type:ty, $summary:expr) => {
        $crate::key!(@ false, $field: $type, $summary)
    };
    (restart $field:ident: $type:ty, $summary:expr) => {
        $crate::key!(@ true, $field: $type, $summary)
    };
    (@ $restart:literal, $field:ident: $type:ty, $summary:expr) => {
        $crate::config::section::Key {
            name: stringify!($field),
            form: <$type as $crate::config::value::Value>::FORM,
            summary: $summary,
            restart: $restart,
            assign: |section, text| {
                section.$field = <$type as $crate::config::value::Value>::parse(text)?;
                Ok(())
            },
            text: |section| $crate::config::value::Value::text(&section.$field),
        }
    };
}

/// A section of the configuration.
pub trait Section: Sized + 'static {
    /// As it is written in the file.
    const NAME: &'static str;

    /// Every key, in the order of the documentation.
    const KEYS: &'static [Key<Self>];

    /// What must hold between several values.
    ///
    /// # Errors
    /// What does not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// One key by its name.
    fn key(name: &str) -> Option<&'static Key<Self>> {
        Self::KEYS.iter().find(|key| key.name == name)
    }

    /// The key whose name is most like this one.
    fn nearest(name: &str) -> Option<&'static str> {
        nearest(name, Self::KEYS.iter().map(|key| key.name))
    }
}

/// One line of the documentation, and of what `pgs config show` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The section's name.
    pub section: &'static str,
    /// The key's name.
    pub name: &'static str,
    /// How its value is written.
    pub form: &'static str,
    /// What it is for.
    pub summary: &'static str,
    /// Whether a change counts for a router that was started anew, and not before.
    pub restart: bool,
    /// Its value.
    pub value: String,
}

/// A section of whatever type.
pub trait AnySection {
    /// As it is written in the file.
    fn name(&self) -> &'static str;

    /// Every key with its value.
    fn rows(&self) -> Vec<Row>;

    /// Takes a value over; `None` where there is no such key.
    fn assign(&mut self, name: &str, text: &str) -> Option<Result<(), String>>;

    /// The key whose name is most like this one.
    fn nearest_key(&self, name: &str) -> Option<&'static str>;

    /// What must hold between several values.
    ///
    /// # Errors
    /// What does not.
    fn check_all(&self) -> Result<(), String>;
}

impl<S: Section> AnySection for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn rows(&self) -> Vec<Row> {
        S::KEYS
            .iter()
            .map(|key| Row {
                section: S::NAME,
                name: key.name,
                form: key.form,
                summary: key.summary,
                restart: key.restart,
                value: (key.text)(self),
            })
            .collect()
    }

    fn assign(&mut self, name: &str, text: &str) -> Option<Result<(), String>> {
        S::key(name).map(|key| (key.assign)(self, text))
    }

    fn nearest_key(&self, name: &str) -> Option<&'static str> {
        S::nearest(name)
    }

    fn check_all(&self) -> Result<(), String> {
        self.check()
    }
}
