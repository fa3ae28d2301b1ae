//! What the commands and a running `pgs serve` say to each other: one JSON request line and one
//! JSON response line over the Unix socket `admin.sock` in the run directory.

pub mod client;
pub mod request;
