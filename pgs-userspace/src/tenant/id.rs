//! A tenant's id, valid by construction.
