//! Holds descriptors outside the router, so that sessions outlive it.
//!
//! Where sockets, maps and the program are open elsewhere too, the kernel goes on moving a
//! session's bytes after `kill -9` of the router, and the next router takes it over.
//! There are two such places: systemd's file-descriptor store, and a process of our own.
//!
//! | part | its one idea |
//! |---|---|
//! | [`store`] | what can be kept, and what a place to keep it must do |
//! | [`link`] | the router's side of a keeper process: starts it, feeds it, replaces it |
//! | [`process`] | the keeper process itself |
//! | [`systemd`] | systemd's store in its place |
//! | [`owner`] | which process serves a session itself |
//! | [`table`] | what is known of each session, in memory that is kept with it |
//!
//! Knows nothing of what a descriptor is for, and nothing of aya.

mod attach;
mod backlog;
mod channel;
mod connections;
mod hangup;
mod holdings;
pub mod inquiry;
pub mod link;
mod link_thread;
mod message;
pub mod owner;
pub mod process;
mod state;
pub mod store;
pub mod systemd;
pub mod table;

/// Name of the keeper's socket in the run directory.
const SOCKET_NAME: &str = "keeper.sock";
