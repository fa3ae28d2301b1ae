//! One container, volume and socket directory per tenant. Only this module knows bollard.

pub mod answer;
pub mod engine;
pub mod error;
pub mod execute;
mod foreign_tree;
pub mod image;
pub mod lifecycle;
pub mod logs;
pub mod name;
pub mod readiness;
pub mod removal;
pub mod server;
pub mod server_tls;
pub mod socket_directory;
mod specification;
#[cfg(test)]
mod stand_in;
pub mod state;
pub mod terminal;
