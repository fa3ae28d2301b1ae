//! From accept to handover: startup, routing, access, authentication relayed, cancel, drain.
//!
//! Nearly everything here ends with the login: an authenticated session in the clear becomes a
//! [`Handover`](crate::datapath::handover::Handover) and belongs to the data path. One over TLS
//! stays here, relayed by a task of its own.

mod admin;
mod admission;
mod backend;
mod budget;
mod cancel;
mod client;
mod connection;
mod counters;
mod encryption;
mod entrance;
mod idle;
mod listener;
mod login;
mod negotiation;
mod notify;
mod origin;
mod rewound;
mod run;
mod secure_flow;
mod secure_relay;
mod sessions;

pub use budget::Budget;
pub use run::ServeError;
pub use run::Settings;
pub use run::run;
