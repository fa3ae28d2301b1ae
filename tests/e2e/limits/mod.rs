//! What an operator may bound, for one tenant and for the installation: it counts, it counts at
//! once, and it counts for nobody else.
//!
//! Clients of different addresses are clients on different addresses of 127.0.0.0/8.

mod addresses;
mod beyond;
mod configuration;
mod failures;
mod idle;
mod tenant;
mod waiting;

use std::net::IpAddr;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::router::Router;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    (
        "an_allow_list_holds_for_sessions_and_cancels",
        tenant::allow_list,
    ),
    ("caps_and_rates_of_a_tenant", tenant::caps_and_rates),
    ("settings_are_shown_and_checked", tenant::shown_and_checked),
    (
        "too_many_arrivals_of_one_address",
        addresses::too_many_arrivals,
    ),
    (
        "too_many_logins_under_way_of_one_address",
        addresses::too_many_logins_under_way,
    ),
    (
        "logins_under_way_leave_a_tenant_its_places",
        addresses::logins_under_way_by_default,
    ),
    (
        "too_many_connections_of_one_address",
        addresses::too_many_connections,
    ),
    (
        "cancels_of_ones_own_are_no_connections",
        addresses::cancels_are_no_connections,
    ),
    (
        "too_many_cancels_of_one_address",
        addresses::too_many_cancels,
    ),
    (
        "an_address_beyond_its_bounds_can_cancel",
        beyond::cancels_go_on,
    ),
    (
        "who_waits_for_its_login_is_let_in_or_told",
        waiting::let_in_or_told,
    ),
    ("who_waits_for_its_login_is_not_blamed", waiting::not_blamed),
    ("failed_logins_have_to_wait", failures::have_to_wait),
    ("idle_sessions_end", idle::idle_sessions_end),
    ("clients_that_do_not_acknowledge", idle::user_timeout),
    ("the_kernel_probes_silent_clients", idle::keepalive),
    ("the_configuration_file", configuration::file),
];

/// One client.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

/// Another one.
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Logs in from an address.
fn log_in(router: &Router, from: IpAddr, login: &Login) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_from(from, router.address())?;
    wire.log_in(login)?;
    Ok(wire)
}

/// The error that a login from this address gets.
fn refused(router: &Router, from: IpAddr, login: &Login) -> anyhow::Result<Message> {
    let mut wire = Wire::connect_from(from, router.address())?;
    let Login {
        user,
        database,
        password,
    } = login;
    wire.send(&startup_packet(
        PROTOCOL_3_0,
        &[("user", user), ("database", database)],
    ))?;
    let messages = wire.authenticate(password)?.messages;
    let last = messages.last().context("no answer")?;
    ensure!(last.kind == b'E', "let in: {messages:?}");
    Ok(last.clone())
}

/// That a refusal is this one.
fn ensure_state(message: &Message, state: &str, words: &str) -> anyhow::Result<()> {
    let text = message.field(b'M').unwrap_or_default();
    ensure!(
        message.sqlstate().as_deref() == Some(state) && text.contains(words),
        "not {state} {words:?}: {message:?}"
    );
    ensure!(message.field(b'H').is_some(), "no hint: {message:?}");
    Ok(())
}

/// How often the router has counted something.
fn counter(router: &Router, name: &str) -> anyhow::Result<u64> {
    let status = router.status()?;
    Ok(status["counters"][name].as_u64().unwrap_or(0))
}
