//! What is run under each kernel.

use std::time::Duration;

/// One program with arguments.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) program: Program,
    pub(super) arguments: &'static [&'static str],
    /// A variable that is set for it alone.
    pub(super) variable: Option<(&'static str, &'static str)>,
    pub(super) limit: Duration,
}

/// Which one.
pub(super) enum Program {
    /// The router and its commands.
    Pgs,
    /// A test target.
    Test(&'static str),
}

/// The kernel path's scenarios, but for those that end before a session has a path or are about
/// what no kernel decides, and those that move more than an emulated processor can.
const DATA_PATH: [&str; 41] = [
    "kernel::",
    "--skip",
    "::routing::",
    "--skip",
    "::front_door::",
    "--skip",
    "::indistinguishable::",
    "--skip",
    "::access::",
    "--skip",
    "::enumeration::",
    "--skip",
    "::limits::",
    "--skip",
    "::deadlines::",
    "--skip",
    "::reload::",
    "--skip",
    "::metrics::",
    "--skip",
    "::client_address::",
    "--skip",
    "::proxy_protocol::",
    "--skip",
    "::slow_client::",
    "--skip",
    "::replication::",
    "--skip",
    "::tls::",
    "--skip",
    "::attack::",
    "--skip",
    "::isolation::",
    "--skip",
    "::privileges::",
    "--skip",
    "::lifecycle::",
    "--skip",
    "::drain::",
    "--skip",
    "::faults::",
];

const fn minutes(number: u64) -> Duration {
    Duration::from_secs(60 * number)
}

/// In the order in which they are run.
pub(super) const PARTS: [Part; 5] = [
    Part {
        name: "canaries",
        what: "`pgs doctor`: what is tried at every start",
        program: Program::Pgs,
        arguments: &["doctor"],
        variable: None,
        limit: minutes(2),
    },
    Part {
        name: "units",
        what: "ends that speak, send twice, close and die at every step of an enrolment, and of \
               the way out of the verdict and back",
        program: Program::Test("lib"),
        arguments: &[
            "datapath::arrivals_tests",
            "datapath::endings_tests",
            "datapath::kernel::enrol",
            "datapath::repeated_tests",
            "datapath::reuse_tests",
            "datapath::withdrawal_tests",
            "datapath::outliving_tests",
            "--test-threads=1",
        ],
        variable: None,
        limit: minutes(20),
    },
    Part {
        name: "keeper",
        what: "sessions that go on without a router",
        program: Program::Test("keeper"),
        arguments: &[],
        variable: None,
        limit: minutes(20),
    },
    Part {
        name: "data-path",
        what: "end-to-end tests of the kernel path, on real containers",
        program: Program::Test("e2e"),
        arguments: &DATA_PATH,
        variable: None,
        limit: minutes(40),
    },
    Part {
        name: "idle",
        what: "9000 sessions on which nothing happens",
        program: Program::Test("e2e"),
        arguments: &["idle_sessions_cost_little"],
        variable: Some(("PGS_TEST_SOAK", "60")),
        limit: minutes(15),
    },
];

/// For the boot, and for Docker to have its image.
const BOOT_LIMIT: Duration = minutes(10);

/// How long a kernel may take for all of these.
pub(super) fn limit(parts: &[&Part]) -> Duration {
    BOOT_LIMIT + parts.iter().map(|part| part.limit).sum::<Duration>()
}
