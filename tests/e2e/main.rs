//! End-to-end tests: real containers, real clients, each scenario on both data paths, but for what
//! has none.
//!
//! `cargo test -p pgs-tests --test e2e -- <filter>`, with `pgs` built before. What a test prints at
//! the end of a run: how many were skipped and why. From the environment:
//!
//! - `PGS_BIN`: the binary under test; else `target/debug/pgs`.
//! - `PGS_IMAGE`: the image for tenants; else pgs's own choice.
//! - `PGS_TEST_PYTHON`: an interpreter with psycopg; else one is made under `target`.
//! - `PGS_TEST_SKIPPED`: a file that gets one line for each skipped test, name and reason.
//! - `PGS_TEST_SOAK`: seconds; the long scenarios are run in their complete form, and those that
//!   could go on for ever for so long. `cargo xtask soak` sets it.
//! - `PGS_TEST_FORBID_SKIP`: if set to anything, a test that this machine cannot run fails;
//!   `cargo xtask ci` sets it, where the environment says nothing of it. What is about one data
//!   path is skipped on the other.

mod access;
mod attack;
mod bulk;
mod cancel;
mod client_address;
mod closing;
mod crowd;
mod deadlines;
mod drain;
mod enumeration;
mod faults;
mod front_door;
mod handover;
mod indistinguishable;
mod isolation;
mod leaving;
mod lifecycle;
mod limits;
mod metrics;
mod notify;
mod paths;
mod privileges;
mod proxy_protocol;
mod queries;
mod reload;
mod replication;
mod routing;
mod runner;
mod slow_client;
mod survival;
mod tls;

use std::process::ExitCode;

use pgs_tests::stage::Scenario;

/// A name and what it runs.
type Named = (&'static str, Scenario);

/// In the order in which they run: what everything else rests on comes first.
const MODULES: &[(&str, &[Named])] = &[
    ("queries", queries::SCENARIOS),
    ("routing", routing::SCENARIOS),
    ("front_door", front_door::SCENARIOS),
    ("indistinguishable", indistinguishable::SCENARIOS),
    ("access", access::SCENARIOS),
    ("enumeration", enumeration::SCENARIOS),
    ("limits", limits::SCENARIOS),
    ("deadlines", deadlines::SCENARIOS),
    ("reload", reload::SCENARIOS),
    ("metrics", metrics::SCENARIOS),
    ("cancel", cancel::SCENARIOS),
    ("client_address", client_address::SCENARIOS),
    ("proxy_protocol", proxy_protocol::SCENARIOS),
    ("notify", notify::SCENARIOS),
    ("handover", handover::SCENARIOS),
    ("paths", paths::SCENARIOS),
    ("closing", closing::SCENARIOS),
    ("bulk", bulk::SCENARIOS),
    ("slow_client", slow_client::SCENARIOS),
    ("replication", replication::SCENARIOS),
    ("tls", tls::SCENARIOS),
    ("crowd", crowd::SCENARIOS),
    ("attack", attack::SCENARIOS),
    ("isolation", isolation::SCENARIOS),
    ("privileges", privileges::SCENARIOS),
    ("lifecycle", lifecycle::SCENARIOS),
    ("drain", drain::SCENARIOS),
    ("leaving", leaving::SCENARIOS),
    ("survival", survival::SCENARIOS),
    ("faults", faults::SCENARIOS),
];

/// What is over before a session has a data path, or moved by neither of them: modules, and
/// scenarios of others. They run once, beside the kernel path, which is what serves where it can.
/// In their complete form all run on both.
const WITHOUT_A_PATH: &[&str] = &[
    "attack",
    "deadlines",
    "enumeration",
    "front_door",
    "limits::an_address_beyond_its_bounds_can_cancel",
    "limits::cancels_of_ones_own_are_no_connections",
    "limits::failed_logins_have_to_wait",
    "limits::logins_under_way_leave_a_tenant_its_places",
    "limits::the_configuration_file",
    "limits::too_many_arrivals_of_one_address",
    "limits::too_many_cancels_of_one_address",
    "limits::too_many_connections_of_one_address",
    "limits::too_many_logins_under_way_of_one_address",
    "limits::who_waits_for_its_login_is_let_in_or_told",
    "limits::who_waits_for_its_login_is_not_blamed",
    "proxy_protocol",
    "reload",
    "routing",
    "tls",
];

fn main() -> ExitCode {
    runner::run(MODULES, WITHOUT_A_PATH)
}
