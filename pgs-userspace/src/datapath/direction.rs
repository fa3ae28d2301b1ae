//! The two directions of a session.

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client to the tenant's server.
    ToBackend,
    /// From the tenant's server to the client.
    ToClient,
}

impl Direction {
    /// Both.
    pub(super) const BOTH: [Self; 2] = [Self::ToBackend, Self::ToClient];
}
