//! Every bound, wait, retry and buffer size of the program, with its unit in its name.
//! What the eBPF program shares is in `pgs_common::flow`.

pub use access::*;
pub use admin::*;
pub use canary::*;
pub use command::*;
pub use container::*;
pub use data_path::*;
pub use keeper::*;
pub use kernel_path::*;
pub use protocol::*;
pub use router::*;
pub use tenant::*;
pub use tls::*;

mod access;
mod admin;
mod canary;
mod command;
mod container;
mod data_path;
mod keeper;
mod kernel_path;
mod protocol;
mod router;
mod tenant;
mod tls;

#[cfg(test)]
#[path = "limits/fixed_tests.rs"]
mod fixed_tests;
