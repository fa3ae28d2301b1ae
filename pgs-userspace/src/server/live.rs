//! What holds now, and may be another tomorrow without a restart.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use super::encryption::Encryption;
use crate::config::configuration::Configuration;

/// What a connection looks at. Whoever holds one has values that go together.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) configuration: Configuration,
    pub(super) encryption: Encryption,
}

/// The rules that hold now.
#[derive(Debug)]
pub(super) struct Live(RwLock<Arc<Rules>>);

impl Live {
    pub(super) fn new(rules: Rules) -> Self {
        Self(RwLock::new(Arc::new(rules)))
    }

    /// As of now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on.
    pub(super) fn set(&self, rules: Rules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}
