//! `pgs serve`.

use crate::cli::serve::ServeArguments;
use crate::command::Context;
use crate::error::Error;
use crate::error::Kind;

/// Runs the router until it is told to end.
pub(super) async fn run(context: &Context, arguments: ServeArguments) -> Result<(), Error> {
    let _ = (&context.directories, arguments);
    Err(Error::new(Kind::Internal, "this build has no router"))
}
