//! How long the long tests go on: short in every run of the tests, complete under
//! `cargo xtask soak`.

use std::time::Duration;

use anyhow::Context as _;

/// Seconds for which a test without an end of its own goes on. Where it is set, every test is run
/// in its complete form. The only place where it is read is this one.
const VARIABLE: &str = "PGS_TEST_SOAK";

/// The form in which tests are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// As in every run of the tests.
    Short,
    /// As long as it takes; what could go on for ever goes on for so long.
    Complete(Duration),
}

impl Length {
    /// What the environment says.
    ///
    /// # Errors
    /// It says something that is no number of seconds.
    pub fn of_this_run() -> anyhow::Result<Self> {
        let Some(text) = std::env::var_os(VARIABLE) else {
            return Ok(Self::Short);
        };
        let text = text.to_string_lossy();
        let seconds = text.parse();
        let seconds = seconds.with_context(|| format!("{VARIABLE}={text} is no seconds"))?;
        Ok(Self::Complete(Duration::from_secs(seconds)))
    }

    /// One of two, according to the form.
    pub fn pick<T>(self, short: T, complete: T) -> T {
        match self {
            Self::Short => short,
            Self::Complete(_) => complete,
        }
    }

    /// For a test that could go on for ever: so long, or as long as was asked for.
    pub fn time(self, short: Duration) -> Duration {
        match self {
            Self::Short => short,
            Self::Complete(asked) => asked.max(short),
        }
    }
}
