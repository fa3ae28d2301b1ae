//! A test that cannot be run on this machine says why, and is counted.

use std::fmt;

/// If set to anything, what this machine cannot run fails.
const FORBID_VARIABLE: &str = "PGS_TEST_FORBID_SKIP";

/// Why a test cannot be run here. Returned as an error, found again by the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    reason: String,
    /// Whether it would be skipped on every machine.
    on_every_machine: bool,
}

impl Skip {
    /// Ends a scenario without success or failure: this machine cannot run it.
    pub fn because<T>(reason: impl Into<String>) -> anyhow::Result<T> {
        let skip = Self {
            reason: reason.into(),
            on_every_machine: false,
        };
        Err(skip.into())
    }

    /// The same for one that is about the other data path.
    pub fn on_this_path<T>(reason: impl Into<String>) -> anyhow::Result<T> {
        let skip = Self {
            reason: reason.into(),
            on_every_machine: true,
        };
        Err(skip.into())
    }

    /// Whether it is to count as a failure.
    pub fn is_forbidden(&self) -> bool {
        let forbidden = std::env::var_os(FORBID_VARIABLE).is_some_and(|value| !value.is_empty());
        forbidden && !self.on_every_machine
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for Skip {}
