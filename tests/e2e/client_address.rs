//! What a tenant's SQL is told of where its client is, and that the client cannot say otherwise.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::PROTOCOL_3_2;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("sql_reads_the_clients_address", sql_reads_it),
    ("a_client_cannot_forge_its_address", nobody_forges_it),
    ("what_a_session_sets_it_can_take_back", set_and_reset),
    ("replication_connections_have_it_too", replication),
    (
        "with_the_address_off_every_byte_is_forwarded_as_it_is",
        byte_exact_when_off,
    ),
    ("a_packet_without_room_is_refused", no_room),
];

const ADDRESS: &str = "select current_setting('pgs.client_addr', true)";
const PORT: &str = "select current_setting('pgs.client_port', true)";

/// Logs in with more than user and database.
fn log_in_with(stage: &Stage, login: &Login, parameters: &[(&str, &str)]) -> anyhow::Result<Wire> {
    let mut wire = stage.connect()?;
    let named = [("user", &login.user[..]), ("database", &login.database)];
    wire.send(&startup_packet(
        PROTOCOL_3_0,
        &[&named, parameters].concat(),
    ))?;
    let greeting = wire.authenticate(&login.password)?;
    ensure!(greeting.refused().is_none(), "{parameters:?}: {greeting:?}");
    Ok(wire)
}

fn sql_reads_it(stage: &Stage) -> anyhow::Result<()> {
    for version in [PROTOCOL_3_0, PROTOCOL_3_2] {
        let mut wire = stage.connect()?;
        wire.log_in_with(version, stage.alpha()?)?;
        let local = wire.local_address()?;
        let told = (wire.query_value(ADDRESS)?, wire.query_value(PORT)?);
        let expected = (local.ip().to_string(), local.port().to_string());
        ensure!(told == expected, "{told:?} instead of {expected:?}");
    }
    Ok(())
}

fn nobody_forges_it(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    // What a role may change of itself counts for less than what a client says.
    let role = format!("alter role {} set pgs.client_addr = '6.6.6.1'", alpha.user);
    stage.log_in(alpha)?.query(&role)?;
    let attempts: &[&[(&str, &str)]] = &[
        &[],
        &[("options", "-c pgs.client_addr=6.6.6.2")],
        &[("options", "--pgs.client_addr=6.6.6.3")],
        &[("options", "--PGS.client-addr=6.6.6.4 -c pgs.client_port=6")],
        &[("pgs.client_addr", "6.6.6.5")],
        &[("PGS.Client_Addr", "6.6.6.6")],
        &[
            ("options", "-c pgs.client_addr=6.6.6.7 -c x.y=\\"),
            ("pgs.client_addr", "6.6.6.8"),
            ("options", "-c pgs.client_addr=6.6.6.9"),
        ],
    ];
    for attempt in attempts {
        let mut wire = log_in_with(stage, alpha, attempt)?;
        let told = (wire.query_value(ADDRESS)?, wire.query_value(PORT)?);
        let local = wire.local_address()?;
        let expected = (local.ip().to_string(), local.port().to_string());
        ensure!(told == expected, "{attempt:?}: {told:?}");
    }
    let role = format!("alter role {} reset pgs.client_addr", alpha.user);
    stage.log_in(alpha)?.query(&role)?;
    Ok(())
}

/// It is a setting like any other: the promise is about what a session begins with.
fn set_and_reset(stage: &Stage) -> anyhow::Result<()> {
    let mut wire = stage.log_in(stage.alpha()?)?;
    let told = wire.query_value(ADDRESS)?;
    for undo in ["reset pgs.client_addr", "discard all"] {
        wire.query("set pgs.client_addr = '6.6.6.6'")?;
        ensure!(wire.query_value(ADDRESS)? == "6.6.6.6");
        wire.query(undo)?;
        let again = wire.query_value(ADDRESS)?;
        ensure!(again == told, "`{undo}` gives {again:?}");
    }
    Ok(())
}

fn replication(stage: &Stage) -> anyhow::Result<()> {
    let chief = stage.chief()?;
    for kind in ["true", "database"] {
        let forged = [("replication", kind), ("pgs.client_addr", "6.6.6.6")];
        let mut wire = log_in_with(stage, chief, &forged)?;
        let told = wire.query_value("SHOW pgs.client_addr")?;
        ensure!(
            told == wire.local_address()?.ip().to_string(),
            "{kind}: {told:?}"
        );
        let system = wire.query("IDENTIFY_SYSTEM")?;
        ensure!(
            system.iter().any(|message| message.kind == b'D'),
            "{system:?}"
        );
    }
    Ok(())
}

/// In the place of the tenant's server: what it is sent first.
fn forwarded(stage: &Stage, socket: &UnixListener, packet: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut wire = stage.connect()?;
    wire.send(packet)?;
    socket.set_nonblocking(true)?;
    let limit = Duration::from_secs(5);
    let mut server = process::eventually("the router connects", limit, || {
        Ok(socket.accept().ok().map(|(server, _)| server))
    })?;
    server.set_nonblocking(false)?;
    server.set_read_timeout(Some(limit))?;
    let mut length = [0; 4];
    server.read_exact(&mut length)?;
    let mut body = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
    server.read_exact(&mut body)?;
    server.set_read_timeout(Some(Duration::from_millis(100)))?;
    let more = server.read(&mut [0; 16]);
    ensure!(more.is_err(), "more follows the packet: {more:?}");
    Ok([&length[..], &body].concat())
}

fn byte_exact_when_off(stage: &Stage) -> anyhow::Result<()> {
    let tenant = stage.installation()?.create_tenant("exact")?;
    let router = stage.router()?;
    router.pgs(&["set", tenant.id(), "client_address=off"])?;
    let mut wire = stage.log_in(tenant.login())?;
    let told = wire.query_value(ADDRESS)?;
    ensure!(told.is_empty(), "told {told:?} although it is off");
    // Why it is a parameter of its own: `options` would come too early.
    let both = [
        ("pgs.client_addr", "6.6.6.2"),
        ("options", "-c pgs.client_addr=6.6.6.1"),
    ];
    let told = log_in_with(stage, tenant.login(), &both)?.query_value(ADDRESS)?;
    ensure!(told == "6.6.6.2", "PostgreSQL's order has changed: {told}");
    drop(wire);
    router.pgs(&["stop", tenant.id()])?;
    let socket = tenant.socket();
    if socket.exists() {
        fs::remove_file(&socket)?;
    }
    let listener = UnixListener::bind(&socket).with_context(|| format!("{socket:?}"))?;
    let id = tenant.id();
    let packets = [
        startup_packet(PROTOCOL_3_0, &[("user", id)]),
        startup_packet(
            0x0003_270f,
            &[
                ("user", id),
                ("_pq_.x", "y"),
                ("options", "-c pgs.client_addr=6.6.6.6"),
            ],
        ),
        startup_packet(
            PROTOCOL_3_2,
            &[("user", id), ("application_name", "\u{fc}\u{1f}\\ x")],
        ),
    ];
    for packet in &packets {
        let got = forwarded(stage, &listener, packet)?;
        ensure!(
            &got == packet,
            "{} became {}",
            packet.escape_ascii(),
            got.escape_ascii()
        );
    }
    router.pgs(&["set", id, "client_address=on"])?;
    for packet in &packets {
        let got = forwarded(stage, &listener, packet)?;
        // The length word changes, and before the terminator comes the address.
        let (kept, added) = got.split_at(packet.len() - 1);
        ensure!(
            kept[4..] == packet[4..packet.len() - 1],
            "{}",
            got.escape_ascii()
        );
        let added = String::from_utf8(added.to_vec())?;
        let expected = "pgs.client_addr\x00127.0.0.1\0pgs.client_port\0";
        ensure!(
            added.starts_with(expected) && added.ends_with("\0\0"),
            "{added:?}"
        );
    }
    Ok(())
}

fn no_room(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    // 10 000 bytes are what PostgreSQL takes; the forged address must not get through instead.
    let named = [("user", &alpha.user[..]), ("pgs.client_addr", "6.6.6.6")];
    let short = startup_packet(
        PROTOCOL_3_0,
        &[&named[..], &[("application_name", "")]].concat(),
    );
    let name = "x".repeat(9_990 - short.len());
    let long = startup_packet(
        PROTOCOL_3_0,
        &[&named[..], &[("application_name", &name)]].concat(),
    );
    let mut wire = stage.connect()?;
    wire.send(&long)?;
    let refused = wire.message()?;
    ensure!(
        refused.sqlstate().as_deref() == Some("54000"),
        "{refused:?}"
    );
    let hint = refused.field(b'H').unwrap_or_default();
    ensure!(hint.contains("client_address=off"), "{hint}");
    Ok(())
}
