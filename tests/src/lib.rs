//! The harness of the end-to-end tests.
//!
//! | module | its one idea |
//! |---|---|
//! | [`stage`] | what the scenarios of one data path share: a router and a few tenants |
//! | [`installation`] | a state directory of its own, and `pgs` commands run on it |
//! | [`router`] | one `pgs serve`, from start to stop |
//! | [`tenant`] | one tenant, from `pgs create` to `pgs remove` |
//! | [`tenants`] | what the tests of the verbs need: an installation for each test |
//! | [`wire`], [`login`] | a client that sees every message and every byte |
//! | [`trust`] | certificates for a router, and clients that trust them or do not care |
//! | [`driver`] | the `tokio-postgres` driver, connected through the port |
//! | [`pattern`] | bytes that show when some are missing, doubled or out of order |
//! | [`process`] | a subprocess with a time limit |
//! | [`memory`], [`processor`] | what the machine's memory and time are used for |
//! | [`belongings`] | what a router has open: sockets, and entries of its maps |
//! | [`stand_in`] | a tenant without a container, for thousands of sessions |
//! | [`length`] | how long the long tests go on |
//! | [`skip`] | a test that cannot be run here says why |

pub mod belongings;
pub mod driver;
pub mod installation;
mod leftovers;
pub mod length;
pub mod login;
pub mod memory;
pub mod pattern;
pub mod process;
pub mod processor;
pub mod router;
pub mod skip;
mod socket;
pub mod stage;
pub mod stand_in;
pub mod tenant;
pub mod tenants;
pub mod trust;
pub mod wire;
