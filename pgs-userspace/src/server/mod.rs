//! From accept to handover: startup, routing, access, authentication relayed, cancel, drain.
//!
//! Nearly everything here ends with the login: an authenticated session in the clear becomes a
//! [`Handover`](crate::datapath::handover::Handover) and belongs to the data path. One over TLS
//! stays here, relayed by a task of its own.

mod accepting;
mod admin;
mod admission;
mod admit;
mod arriving;
mod backend;
mod binding;
mod budget;
mod cancel;
mod client;
mod connection;
mod counters;
mod drain;
mod elsewhere;
mod encryption;
mod ending;
mod entrance;
mod idle;
mod keeping;
mod lease;
mod listener;
mod live;
mod login;
mod looking;
mod namespace;
mod negotiation;
mod notify;
mod origin;
mod outliving;
mod passthrough;
mod path_choice;
mod punctual;
mod reload;
mod remaining;
mod rewound;
mod routing;
mod run;
mod secure_arrival;
mod secure_flow;
mod secure_relay;
mod sessions;
mod signals;
mod strangers;
mod survival;
mod tenants;
mod tls_policy;
mod unseen_login;

pub use budget::Budget;
pub use namespace::NamespaceError;
pub use passthrough::ServerTlsError;
pub use passthrough::shown_certificate;
pub use run::ServeError;
pub use run::Settings;
pub use run::run;
