//! What is measured against what.

use serde::Serialize;

/// One way to a PostgreSQL server in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Subject {
    /// The port of a plain container, published by Docker. What every ratio is against first.
    Published,
    /// HAProxy in TCP mode, over Docker's bridge to the plain container.
    Haproxy,
    /// PgBouncer with session pooling, over Docker's bridge to the plain container.
    Pgbouncer,
    /// `pgs serve --path relay`.
    PgsRelay,
    /// `pgs serve --path kernel`.
    PgsKernel,
    /// `pgs serve --path auto`.
    PgsAuto,
    /// The tenant's Unix socket without anything in between: what cannot be beaten.
    UnixSocket,
}

impl Subject {
    pub(super) const ALL: [Self; 7] = [
        Self::Published,
        Self::Haproxy,
        Self::Pgbouncer,
        Self::PgsRelay,
        Self::PgsKernel,
        Self::PgsAuto,
        Self::UnixSocket,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Haproxy => "haproxy",
            Self::Pgbouncer => "pgbouncer",
            Self::PgsRelay => "pgs-relay",
            Self::PgsKernel => "pgs-kernel",
            Self::PgsAuto => "pgs-auto",
            Self::UnixSocket => "unix-socket",
        }
    }

    /// For readers of the results.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Published => "published port",
            Self::Haproxy => "HAProxy",
            Self::Pgbouncer => "PgBouncer",
            Self::PgsRelay => "pgs relay",
            Self::PgsKernel => "pgs kernel",
            Self::PgsAuto => "pgs auto",
            Self::UnixSocket => "Unix socket",
        }
    }

    /// Whether it is a process of its own between client and server.
    pub(super) fn is_router(self) -> bool {
        !matches!(self, Self::Published | Self::UnixSocket)
    }

    /// The argument of `pgs serve --path`.
    pub(super) fn path(self) -> Option<&'static str> {
        match self {
            Self::PgsRelay => Some("relay"),
            Self::PgsKernel => Some("kernel"),
            Self::PgsAuto => Some("auto"),
            _ => None,
        }
    }
}
