//! One PostgreSQL per tenant, all behind one port.
//!
//! | module | its one idea | knows nothing of |
//! |---|---|---|
//! | [`protocol`] | bytes in, values or errors out | sockets, files, time |
//! | [`tenant`] | who there is and what they may do | containers, connections |
//! | [`container`] | a container, volume and socket directory per tenant | connections |
//! | [`datapath`] | moves a session's bytes, in the kernel or by relay | tenants, the protocol |
//! | [`keeper`] | holds descriptors for the next router, outside this one | what they are for |
//! | [`server`] | from accept to handover: startup, routing, access, cancel, drain | containers |
//! | [`server_socket`] | connects to a tenant's server, not to what is in its place | tenants |
//! | [`privileges`] | what the router may do on the machine, and giving it up | connections |
//! | [`tls`] | certificates: their files, and which one a client is shown | tenants, sockets |
//! | [`admin`] | what the commands and a running `pgs serve` say to each other | |
//! | [`cli`], [`command`] | the verbs: their arguments, and what they do | |
//! | [`config`] | every bound and every path, in one place | |

pub mod admin;
pub mod cli;
pub mod command;
pub mod config;
pub mod container;
pub mod datapath;
pub mod error;
pub mod keeper;
pub mod output;
pub mod privileges;
pub mod protocol;
pub mod server;
pub mod server_socket;
pub mod tenant;
pub mod tls;
