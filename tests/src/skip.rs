//! A test that cannot be run on this machine says why, and is counted.

use std::fmt;

/// Why a test cannot be run here. Returned as an error, found again by the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip(String);

impl Skip {
    /// Ends a scenario without success or failure.
    pub fn because<T>(reason: impl Into<String>) -> anyhow::Result<T> {
        Err(Self(reason.into()).into())
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}
