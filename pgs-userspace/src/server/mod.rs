//! From accept to handover: startup, routing, access, authentication relayed, cancel, drain.
//!
//! Everything here ends with the login: an authenticated session becomes a
//! [`Handover`](crate::datapath::handover::Handover) and belongs to the data path.

mod admin;
mod backend;
mod cancel;
mod connection;
mod counters;
mod listener;
mod login;
mod negotiation;
mod run;
mod sessions;

pub use run::ServeError;
pub use run::Settings;
pub use run::run;
