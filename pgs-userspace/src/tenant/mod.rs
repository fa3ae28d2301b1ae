//! Who the tenants are and what they may do.

pub mod id;
