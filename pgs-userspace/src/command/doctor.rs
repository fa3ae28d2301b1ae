//! `pgs doctor`.

use crate::cli::FormatArguments;
use crate::command::Context;
use crate::error::Error;

pub(super) async fn run(_context: &Context, _arguments: FormatArguments) -> Result<(), Error> {
    Ok(())
}
