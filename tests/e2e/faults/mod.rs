//! What can go wrong on a session's way, each on both data paths and byte for byte: what
//! `docs/faults.md` lists and no other scenario holds.
//!
//! Most are short here and complete under `cargo xtask soak`; what they measured they print.

pub(crate) mod churn;
mod connections;
mod fallback;
mod idle;
mod kills;
mod regained;
mod servers;
mod small_buffers;
mod spills;
mod stalls;
mod unready;
mod wakes;
mod withdrawals;
mod without_router;

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Tenant;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("connections_with_hashes", connections::with_hashes),
    (
        "a_large_result_stands_still_and_goes_on",
        stalls::a_large_result,
    ),
    ("many_clients_that_stand_still", stalls::many_clients),
    ("a_copy_into_a_locked_table", stalls::a_copy_that_waits),
    ("a_thousand_spills_in_one_session", spills::a_thousand),
    (
        "large_results_between_small_turns_leave_the_verdict",
        withdrawals::large_results,
    ),
    (
        "a_client_that_reads_when_it_has_written_all",
        spills::written_before_read,
    ),
    ("the_smallest_send_buffers", small_buffers::smallest),
    ("a_killed_backend_in_a_result", servers::killed_backend),
    ("a_killed_container_in_a_result", servers::killed_container),
    ("a_stopped_tenant_in_a_result", servers::stopped_tenant),
    (
        "servers_that_let_nobody_in",
        unready::servers_that_let_nobody_in,
    ),
    ("a_full_map_leaves_the_relay", fallback::full_map),
    ("a_failed_canary_leaves_the_relay", fallback::failed_canary),
    (
        "missing_capabilities_leave_what_works",
        fallback::missing_capabilities,
    ),
    (
        "missing_type_information_leaves_what_works",
        fallback::missing_type_information,
    ),
    (
        "both_directions_after_a_router_with_one",
        regained::both_directions,
    ),
    (
        "a_client_that_has_ended_before_the_handover",
        fallback::ended_client,
    ),
    ("churn_leaves_nothing_behind", churn::leaves_nothing),
    ("a_stopped_keeper_delays_no_end", churn::stopped_keeper),
    ("routers_killed_again_and_again", kills::again_and_again),
    (
        "a_router_killed_with_bytes_in_its_hand",
        kills::with_bytes_in_hand,
    ),
    ("idle_sessions_cost_little", idle::idle_sessions),
    ("redirected_turns_wake_nobody", wakes::redirected_turns),
    (
        "without_a_router_a_flood_is_made_to_wait",
        without_router::flood,
    ),
    (
        "without_a_router_a_stopped_client_holds_no_memory",
        without_router::stopped_client,
    ),
];

/// Connections of a server beside those of a test.
const CONNECTIONS_BESIDE: usize = 20;

/// Processes of its container beside its connections': the server's own, and health checks.
const PROCESSES_BESIDE: usize = 100;

/// For a server to be back after its restart.
const RESTART_LIMIT: Duration = Duration::from_secs(60);

/// A tenant whose server takes so many connections. Its role is a superuser.
fn roomy_tenant<'a>(stage: &'a Stage, id: &str, connections: usize) -> anyhow::Result<Tenant<'a>> {
    let arguments = ["--enable", "--superuser", "--memory", "8GiB"];
    let tenant = stage.installation()?.create_tenant_with(id, &arguments)?;
    let mut wire = stage.log_in(tenant.login())?;
    let connections = connections + CONNECTIONS_BESIDE;
    wire.query(&format!("alter system set max_connections = {connections}"))?;
    drop(wire);
    stage
        .router()?
        .pgs(&["set", id, &format!("connections_max={connections}")])?;
    stage.router()?.pgs(&["restart", id])?;
    process::eventually("the tenant is back", RESTART_LIMIT, || {
        Ok(stage.log_in(tenant.login()).ok())
    })?;
    let processes = (connections + PROCESSES_BESIDE).to_string();
    let container = stage.installation()?.container_of(id)?;
    let update = ["update", "--pids-limit", &processes, &container];
    process::run(Command::new("docker").args(update), RESTART_LIMIT)?.success()?;
    Ok(tenant)
}

/// Shown whether or not the test passes: what was measured is what a reader wants.
fn say(line: &str) {
    // Nothing can be done about a closed standard output.
    let _ignored = writeln!(std::io::stdout(), "{line}");
}
