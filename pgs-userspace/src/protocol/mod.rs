//! PostgreSQL's wire protocol, version 3: bytes in, values or errors out; no I/O, no panic.
//!
//! | module | its one idea |
//! |---|---|
//! | [`startup`] | the first packet of a connection |
//! | [`parameters`] | the name/value pairs of a startup packet, and what `options` says |
//! | [`cancel`] | cancel keys and the request that carries one |
//! | [`proxy`] | where a client really is, as a trusted load balancer says |
//! | [`message`] | where the messages of a stream begin and end, in whatever pieces it arrives |
//! | [`backend`] | what a backend says during authentication |
//! | [`client_address`] | the address, written into a startup packet |
//! | [`error_response`] | an ErrorResponse, to bytes and back |
//! | [`refusal`] | every refusal that pgs itself makes |
//!
//! The reference is PostgreSQL's own source: where a value or a rule is PostgreSQL's, the file it
//! comes from is named beside it.

pub mod backend;
pub mod cancel;
pub mod client_address;
pub mod error_response;
pub mod message;
pub mod parameters;
pub mod proxy;
pub mod refusal;
pub mod sqlstate;
pub mod startup;
pub mod version;

#[cfg(test)]
mod properties;

/// What a parser found at the beginning of a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<T> {
    /// More bytes are needed before anything can be said.
    Incomplete {
        /// At least this many bytes in all, those already in the buffer included.
        need: usize,
    },
    /// A whole value.
    Complete {
        /// The value.
        value: T,
        /// How many bytes of the buffer it took, from its beginning.
        consumed: usize,
    },
}
