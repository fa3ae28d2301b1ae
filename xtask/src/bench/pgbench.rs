//! What pgbench prints, and the log of single transactions that it writes.

use super::statistics::percentile;
use anyhow::{Context, Result, bail};

/// The end of a run of pgbench.
#[derive(Debug, PartialEq)]
pub(super) struct Summary {
    /// With `-C` the time to connect counts, without it not.
    pub(super) transactions_per_second: f64,
    pub(super) transactions: u64,
}

impl Summary {
    /// Reads what `pgbench -T` prints at its end.
    ///
    /// # Errors
    /// A number is missing, or a transaction failed.
    pub(super) fn parse(printed: &str) -> Result<Self> {
        let field = |name: &str| {
            printed
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next())
                .with_context(|| format!("pgbench printed no `{name}`: {printed}"))
        };
        let transactions = field("number of transactions actually processed:")?;
        let failed = field("number of failed transactions:")?;
        if failed != "0" {
            bail!("{failed} transactions failed");
        }
        // A run to a count prints `done/wanted`.
        let transactions = transactions.split('/').next().unwrap_or_default();
        Ok(Self {
            transactions_per_second: field("tps =")?.parse().context("pgbench's tps")?,
            transactions: transactions.parse().context("pgbench's transactions")?,
        })
    }
}

/// Latencies in microseconds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p99: u64,
}

/// Single transactions' latencies, from any number of logs.
#[derive(Debug, Default)]
pub(super) struct Log {
    microseconds: Vec<u64>,
}

impl Log {
    /// Takes in one log file of `pgbench -l`: `client transaction microseconds script second
    /// microsecond` a line (<https://www.postgresql.org/docs/15/pgbench.html>).
    ///
    /// # Errors
    /// A line is none.
    pub(super) fn read(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            let third = line.split_ascii_whitespace().nth(2);
            let latency = third.and_then(|field| field.parse().ok());
            let latency = latency.with_context(|| format!("no line of a pgbench log: `{line}`"))?;
            self.microseconds.push(latency);
        }
        Ok(())
    }

    /// # Errors
    /// No transaction was logged.
    pub(super) fn latency(mut self) -> Result<Latency> {
        self.microseconds.sort_unstable();
        let of = |percent| {
            percentile(&self.microseconds, percent).context("pgbench logged no transaction")
        };
        Ok(Latency {
            p50: of(50)?,
            p99: of(99)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "pgbench (15.18 (Debian 15.18-0+deb12u1), server 18.1)
transaction type: <builtin: select only>
scaling factor: 10
query mode: prepared
number of clients: 4
number of threads: 2
maximum number of tries: 1
duration: 2 s
number of transactions actually processed: 51234
number of failed transactions: 0 (0.000%)
latency average = 0.156 ms
initial connection time = 12.345 ms
tps = 25617.123456 (without initial connection time)
";

    #[test]
    fn a_summary_is_read() {
        let summary = Summary::parse(PRINTED).unwrap();
        assert_eq!(summary.transactions, 51_234);
        assert_eq!(summary.transactions_per_second, 25_617.123_456);
    }

    #[test]
    fn reconnecting_prints_the_rate_in_other_words() {
        let printed = PRINTED
            .replace("initial connection time", "average connection time")
            .replace(
                "(without initial connection time)",
                "(including reconnection times)",
            );
        assert!(Summary::parse(&printed).is_ok());
    }

    #[test]
    fn failed_transactions_and_missing_numbers_are_errors() {
        let failed = PRINTED.replace("transactions: 0 (", "transactions: 3 (");
        let error = Summary::parse(&failed).unwrap_err().to_string();
        assert!(error.contains("3 transactions failed"), "{error}");
        assert!(Summary::parse("pgbench: error: connection failed").is_err());
    }

    #[test]
    fn a_log_gives_latencies_whatever_their_order() {
        let mut log = Log::default();
        log.read("0 199 2241 0 1175850568 995598\n1 7 150 0 1175850568 995599\n")
            .unwrap();
        log.read("0 200 90 0 1175850569 1\n").unwrap();
        let expected = Latency {
            p50: 150,
            p99: 2_241,
        };
        assert_eq!(log.latency().unwrap(), expected);
    }

    #[test]
    fn what_is_no_log_is_an_error() {
        assert!(Log::default().read("0 199 failed 0 1 2").is_err());
        assert!(Log::default().latency().is_err());
    }
}
