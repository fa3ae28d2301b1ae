//! End-to-end tests.

mod tenants;
