//! Who the tenants are and what they may do.

pub mod error;
pub mod id;
pub mod lock;
pub mod password;
pub mod record;
pub mod registry;
pub mod reserved;
pub mod route;
mod schema;
pub mod settings;
pub mod stored_settings;
pub mod tls_wishes;
