//! A session that the kernel path does not get.

use super::with_causes;

/// Why a session could not be enrolled.
#[derive(Debug, thiserror::Error)]
pub(in crate::datapath) enum Refused {
    /// The backend spoke in the middle of it, which it does unasked only when its administrator
    /// does something to it. Bytes may be lost: the session cannot go on.
    #[error("the backend spoke while the session was being enrolled")]
    Contended,
    /// The kernel said no.
    #[error("{0}")]
    Failed(String),
}

/// What a call said no to, and why.
pub(super) fn failed<E: std::error::Error>(what: &'static str) -> impl Fn(E) -> Refused {
    move |error| Refused::Failed(with_causes(what, &error))
}
