//! `pgs keeper`, which `pgs serve` starts.

use std::time::Duration;

use crate::cli::serve::KeeperArguments;
use crate::config::directories::Directories;
use crate::error::Error;
use crate::error::Kind;
use crate::keeper::process;
use crate::keeper::process::KeeperError;

/// Holds descriptors until there is nothing left to hold.
pub(super) fn run(directories: &Directories, arguments: &KeeperArguments) -> Result<u8, Error> {
    let wait = Duration::from_millis(arguments.return_wait_milliseconds);
    process::run(directories.run(), wait).map_err(|error| {
        let text = error.to_string();
        match error {
            KeeperError::NoRouter => {
                Error::new(Kind::Usage, text).with_hint("`pgs serve` starts its keeper by itself")
            }
            KeeperError::System { .. } => Error::new(Kind::Internal, text),
        }
    })?;
    Ok(0)
}
