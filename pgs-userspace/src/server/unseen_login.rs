//! A login between a client and a tenant's server themselves, inside TLS that passes through.
//!
//! Nobody here sees how it ends. How much is moved tells nothing: a client can make a server say
//! any number of bytes before it is logged in, by asking for new keys of TLS or for options of the
//! protocol that are answered one by one. Time does tell: the server closes on whoever is not
//! logged in within its `authentication_timeout`.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::Sleep;
use tokio::time::sleep;

use super::admission::ArrivalPlace;
use crate::config::limits::UNSEEN_LOGIN_PERIOD;

/// The login of a session that lives, until it must be over. Its places are given back then, or
/// when the session ends: its server's is free, too.
pub(super) struct UnseenLogin {
    _places: Places,
    period: Pin<Box<Sleep>>,
}

/// Where an operator bounds them.
pub(super) struct Places {
    /// Among the logins under way of its address to its tenant.
    pub(super) _of_login: Option<ArrivalPlace>,
    /// Among the arrivals and logins of its address.
    pub(super) _of_address: Option<ArrivalPlace>,
}

impl UnseenLogin {
    /// One that begins now.
    pub(super) fn new(places: Places) -> Self {
        Self::within(UNSEEN_LOGIN_PERIOD, places)
    }

    /// The same, over after another time.
    pub(super) fn within(period: Duration, places: Places) -> Self {
        Self {
            _places: places,
            period: Box::pin(sleep(period)),
        }
    }

    /// Whether it is; if not, the task is woken when it is.
    pub(super) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.period.as_mut().poll(context).is_ready()
    }
}
