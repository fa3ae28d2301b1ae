//! What a command asks a keeper when no router answers.

use std::path::Path;

use serde::Serialize;

use super::attach::Launch;
use super::attach::connect;
use super::attach::hear;
use super::attach::say;
use super::message::Message;
use super::store::StoreError;

/// What a keeper holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KeeperReport {
    /// The keeper's process id.
    pub keeper: u32,
    /// The attached router's process id, if there is one.
    pub router: Option<u32>,
    /// Named descriptors.
    pub globals: u32,
    /// Slots, each of a session.
    pub slots: u32,
}

/// Asks the keeper of a run directory; none where there is none.
///
/// # Errors
/// It does not answer.
pub fn inquire(run: &Path) -> Result<Option<KeeperReport>, StoreError> {
    let launch = Launch::of_this_program(run.to_owned());
    let Some(socket) = connect(&launch).map_err(StoreError::system("connect to the keeper"))?
    else {
        return Ok(None);
    };
    let peer = rustix::net::sockopt::socket_peercred(&socket)
        .map_err(|error| StoreError::system("getsockopt SO_PEERCRED")(error.into()))?;
    let answer = match say(&socket, &Message::Inquire).and_then(|()| hear(&socket)) {
        // It was about to end.
        Err(StoreError::Gone) => return Ok(None),
        other => other?,
    };
    match answer {
        (
            Message::Report {
                process_id,
                globals,
                slots,
            },
            _,
        ) => Ok(Some(KeeperReport {
            keeper: peer.pid.as_raw_nonzero().get().unsigned_abs(),
            router: Some(process_id).filter(|id| *id != 0),
            globals,
            slots,
        })),
        (other, _) => Err(StoreError::Unexpected(format!("{other:?}"))),
    }
}
