//! What is measured: the figures, their units, and which way is better.

use serde::Serialize;
use std::fmt::{self, Display};

/// Where the clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Place {
    /// In a network namespace of their own, behind a veth pair: as if on another machine.
    Namespace,
    /// On the machine itself, over 127.0.0.1.
    Loopback,
}

impl Place {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Loopback => "loopback",
        }
    }
}

/// pgbench's `--protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Simple,
    Extended,
    Prepared,
}

impl Mode {
    pub(super) const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// One kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    /// `pgbench -S`: one small query a transaction.
    Select { mode: Mode, clients: u32 },
    /// pgbench's default script: seven statements a transaction, five of them writing.
    TpcB { clients: u32 },
    /// `pgbench -S -C`: a connection for each query.
    Connections { clients: u32 },
    /// One `COPY … TO STDOUT`.
    CopyOut,
    /// One `COPY … FROM STDIN`.
    CopyIn,
    /// Resident memory of the router for each of so many sessions that do nothing.
    IdleSessions,
    /// `Connections`, with so many tenants in the registry.
    Growth { tenants: u32 },
}

/// Its words, from the general to the special, as filters and results name it.
impl Display for Figure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select { mode, clients } => write!(to, "select/{}/c{clients}", mode.name()),
            Self::TpcB { clients } => write!(to, "tpc-b/c{clients}"),
            Self::Connections { clients } => write!(to, "connections/c{clients}"),
            Self::CopyOut => to.write_str("copy-out"),
            Self::CopyIn => to.write_str("copy-in"),
            Self::IdleSessions => to.write_str("idle-sessions"),
            Self::Growth { tenants } => write!(to, "growth/tenants{tenants}"),
        }
    }
}

/// One number that a measurement gives; the unit is in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    TransactionsPerSecond,
    ConnectionsPerSecond,
    LatencyP50Microseconds,
    LatencyP99Microseconds,
    GigabytesPerSecond,
    /// Of the whole machine: client, router, server and kernel.
    CpuSecondsPerGigabyte,
    /// Of the whole machine, for each transaction.
    CpuMicroseconds,
    ResidentBytesPerSession,
}

impl Metric {
    pub(super) fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::TransactionsPerSecond | Self::ConnectionsPerSecond | Self::GigabytesPerSecond
        )
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::TransactionsPerSecond => "transactions/s",
            Self::ConnectionsPerSecond => "connections/s",
            Self::LatencyP50Microseconds => "p50 µs",
            Self::LatencyP99Microseconds => "p99 µs",
            Self::GigabytesPerSecond => "GB/s",
            Self::CpuSecondsPerGigabyte => "CPU s/GB",
            Self::CpuMicroseconds => "CPU µs/transaction",
            Self::ResidentBytesPerSession => "bytes/session",
        }
    }

    /// The value with as many digits as mean something.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::GigabytesPerSecond | Self::CpuSecondsPerGigabyte => format!("{value:.2}"),
            _ if value.abs() < 100.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_named_by_its_words() {
        let figure = Figure::Select {
            mode: Mode::Prepared,
            clients: 16,
        };
        assert_eq!(figure.to_string(), "select/prepared/c16");
    }

    #[test]
    fn values_have_the_digits_that_mean_something() {
        assert_eq!(Metric::GigabytesPerSecond.show(0.4149), "0.41");
        assert_eq!(Metric::LatencyP50Microseconds.show(83.46), "83.5");
        assert_eq!(Metric::TransactionsPerSecond.show(23_456.7), "23457");
    }
}
