//! What is run for long, and for how long.

use std::time::Duration;

/// One or more scenarios of `tests/e2e`.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// What its scenarios' names contain.
    pub(super) filter: &'static str,
    pub(super) what: &'static str,
    /// How often it goes on for as long as it is told, on both paths together; 0 for what has an
    /// end of its own.
    pub(super) open_ended: u32,
    /// Whether router and clients are built for release: what they cost is what is tested, or how
    /// much of it there is in the time.
    pub(super) release: bool,
}

const fn part(name: &'static str, filter: &'static str, what: &'static str) -> Part {
    Part {
        name,
        filter,
        what,
        open_ended: 0,
        release: false,
    }
}

/// In the order in which they are run: what has an end of its own comes first.
pub(super) const PARTS: [Part; 13] = [
    part(
        "connections",
        "faults::connections_with_hashes",
        "1, 100 and 1000 connections at once, pieces of random sizes with hashes both ways",
    ),
    part(
        "large-result",
        "faults::a_large_result",
        "a result of 10 GiB whose client stops reading three times",
    ),
    part(
        "half-close",
        "bulk::half_close",
        "a client that says it sends no more while 1 GB comes back",
    ),
    part(
        "stalled-clients",
        "faults::many_clients",
        "500 clients that do not read",
    ),
    part(
        "spills",
        "faults::a_thousand_spills",
        "20000 turns from the kernel to the router and back in one session",
    ),
    part(
        "withdrawals",
        "faults::large_results",
        "1000 results of 4 to 16 MB, each followed by small turns, and small ones beside them",
    ),
    part(
        "full-duplex",
        "faults::a_client_that_reads",
        "2000 queries, 2 GB of answers, of which none is read before all are asked",
    ),
    part(
        "small-buffers",
        "faults::the_smallest_send_buffers",
        "200 MB in turns through send buffers of 4608 bytes",
    ),
    part(
        "servers",
        "in_a_result",
        "backends, containers and tenants that go away in the middle of a result",
    ),
    part(
        "idle",
        "faults::idle_sessions",
        "9000 sessions on which nothing happens: memory and processor time",
    ),
    Part {
        release: true,
        ..part(
            "attack",
            "attack::a_tenant",
            "ten attacks, fifteen turns each between quiet ones: at least 0.9 of the throughput",
        )
    },
    Part {
        open_ended: 1,
        ..part(
            "kills",
            "faults::routers_killed",
            "a router that is killed every other second while pgbench works",
        )
    },
    Part {
        open_ended: 2,
        release: true,
        ..part(
            "churn",
            "faults::churn",
            "sessions that come and go in every way, until nothing of them is left",
        )
    },
];

/// For set-up and end of what could go on for ever.
const MARGIN: Duration = Duration::from_secs(60);

/// How long each of what could go on for ever may go on, where so much time is left for these.
pub(super) fn share(left: Duration, parts: &[&Part]) -> Duration {
    let shares: u32 = parts.iter().map(|part| part.open_ended).sum();
    let margins = MARGIN * parts.iter().filter(|part| part.open_ended > 0).count() as u32;
    left.saturating_sub(margins) / shares.max(1)
}

/// How many tests a line of the runner's says have passed.
pub(super) fn passed(line: &str) -> usize {
    let counts = line.strip_prefix("test result: ");
    let passed = counts.and_then(|counts| counts.split(" passed").next());
    let passed = passed.and_then(|text| text.rsplit(' ').next());
    passed.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What the scenarios say and what is wrong, not what the runner says of itself.
pub(super) fn is_worth_showing(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with("running ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shared_by_what_has_no_end() {
        let all: Vec<_> = PARTS.iter().collect();
        let minutes = |number: u64| Duration::from_secs(60 * number);
        assert_eq!(share(minutes(62), &all), minutes(20));
        assert_eq!(share(minutes(41), &all[PARTS.len() - 1..]), minutes(20));
        assert_eq!(share(Duration::ZERO, &all), Duration::ZERO);
        assert!(all.is_sorted_by_key(|part| part.open_ended.min(1)));
    }

    #[test]
    fn passed_tests_are_counted() {
        let line = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out";
        assert_eq!(passed(line), 2);
        assert_eq!(passed("test kernel::faults::x ... ok"), 0);
    }
}
