//! `docs/configuration.md` lists the bounds that a user can meet and no key changes, with the
//! values that they have here.

use std::fmt::Display;
use std::time::Duration;

use super::*;
use crate::config::value::Value as _;

struct Row {
    name: &'static str,
    value: String,
    what: &'static str,
    why: &'static str,
}

macro_rules! row {
    ($name:ident, $form:ident, $what:literal, $why:literal) => {
        Row {
            name: stringify!($name),
            value: $form($name),
            what: $what,
            why: $why,
        }
    };
}

fn time(duration: Duration) -> String {
    duration.text()
}

fn number(number: impl Display) -> String {
    format!("{number}")
}

fn part(parts: impl Display) -> String {
    format!("1/{parts}")
}

fn times(factor: impl Display) -> String {
    format!("{factor} ×")
}

fn bytes(bytes: usize) -> String {
    match bytes {
        bytes if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// Logins, cancels and arrivals.
fn of_arrivals() -> [Row; 8] {
    [
        row!(
            LOGIN_PLACE_DEADLINE,
            time,
            "how long a login beyond `address_logins_max` waits for a place",
            "a pool of 1 000 gets its connections within it; who wants less waiting raises that key"
        ),
        row!(
            UNSEEN_LOGIN_PERIOD,
            time,
            "how long a new session whose TLS passes through counts as a login",
            "nobody here sees when the login ends; `address_logins_max` is the key"
        ),
        row!(
            UNSEEN_LOGINS_FACTOR,
            times,
            "so many times `address_logins_max` of these are let in",
            "follows from `address_logins_max`"
        ),
        row!(
            CANCELS_IN_FLIGHT_TENANT_PART,
            part,
            "one tenant's part of `cancels_in_flight_max`",
            "follows from that key; keeps one tenant's server from holding up the others'"
        ),
        row!(
            ADDRESS_ARRIVALS_SHARE,
            part,
            "one address's part of the arrivals, where `address_arrivals_max` is more",
            "a higher one would give an address everybody's places"
        ),
        row!(
            ADDRESS_ARRIVALS_MIN,
            number,
            "but so many in any case",
            "with few open files a part would be next to nothing"
        ),
        row!(
            ARRIVALS_SHARE,
            part,
            "the arrivals' part of the open files, where `arrivals_max` is more",
            "the limit on open files is the key"
        ),
        row!(
            ARRIVALS_MIN,
            number,
            "but so many in any case",
            "with fewer a few slow clients keep everybody out"
        ),
    ]
}

/// What strangers can cause.
fn of_strangers() -> [Row; 9] {
    [
        row!(
            FAREWELLS_MAX,
            number,
            "refused clients that are given time to read why, at once",
            "further ones are told too, and closed at once; it bounds descriptors only"
        ),
        row!(
            CLOSE_LINGER,
            time,
            "that time; and how long a client may take to close behind its backend",
            "longer than a round trip, shorter than anybody notices"
        ),
        row!(
            REMEMBERED_ENTRIES_MAX,
            number,
            "addresses, tenants or pairs of both that one kind of limit remembers",
            "bounds memory; see [access.md](access.md#memory) for who is forgotten"
        ),
        row!(
            STRANGERS_LOG_LINES_MAX,
            number,
            "log lines of one kind that strangers can cause ...",
            "bounds the log; the counters of `pgs metrics` count everything"
        ),
        row!(
            STRANGERS_LOG_PERIOD,
            time,
            "... within this time",
            "as above"
        ),
        row!(
            NO_ACCESS_ANSWER_DELAY,
            time,
            "when 28000 is said to who has no access",
            "hides what the look-up takes; a shorter one would tell which tenants there are"
        ),
        row!(
            SERVER_NAME_ANSWER_DELAY,
            time,
            "the same for a ClientHello with a tenant's name",
            "as above"
        ),
        row!(
            NEXT_NAME_ANSWER_DELAY,
            time,
            "how long a login waits whose user is no tenant before its next name counts",
            "as above; who does not want to wait names the tenant by the user"
        ),
        row!(
            LOGIN_CLIENT_BYTES_MAX,
            bytes,
            "what a client may send before it is logged in",
            "a SASL exchange takes a few hundred bytes"
        ),
    ]
}

/// What the protocols and the files may be like.
fn of_formats() -> [Row; 9] {
    [
        row!(
            STARTUP_PACKET_BYTES_MAX,
            bytes,
            "longest startup packet",
            "PostgreSQL's own bound"
        ),
        row!(
            CLIENT_HELLO_BYTES_MAX,
            bytes,
            "longest ClientHello",
            "one with post-quantum key shares takes 2 000 bytes"
        ),
        row!(
            PROXY_HEADER_BYTES_MAX,
            bytes,
            "longest header of the PROXY protocol",
            "its addresses take 232 bytes at most"
        ),
        row!(
            TENANT_ID_BYTES_MAX,
            bytes,
            "longest tenant id",
            "PostgreSQL's own bound on names"
        ),
        row!(
            PASSWORD_BYTES_MAX,
            bytes,
            "longest password that pgs sets",
            "no person and no password file needs more"
        ),
        row!(
            NETWORKS_IN_LIST_MAX,
            number,
            "networks in one list",
            "it is looked through for every connection"
        ),
        row!(
            LISTEN_ADDRESSES_MAX,
            number,
            "addresses to listen on",
            "each costs a task and a descriptor"
        ),
        row!(
            CERTIFICATES_MAX,
            number,
            "certificates for the port",
            "their files are looked at once a second"
        ),
        row!(
            CERTIFICATE_FILE_BYTES_MAX,
            bytes,
            "largest file of a certificate or key",
            "a chain takes a few KiB"
        ),
    ]
}

/// What is looked at how often, and waits that a command or a session can meet.
fn of_times() -> [Row; 11] {
    [
        row!(
            CERTIFICATE_CHECK_INTERVAL,
            time,
            "between two looks at the certificates' files",
            "cheap, and soon enough after a renewal"
        ),
        row!(
            TLS_WISHES_LIFETIME,
            time,
            "how long it is remembered whether any tenant wants `tls=passthrough` or certificates",
            "asked at every connection, before it is known for whom it is"
        ),
        row!(
            IDLE_CHECK_INTERVAL,
            time,
            "between two looks for sessions beyond `idle_session_timeout`",
            "its precision"
        ),
        row!(
            SERVER_TLS_DEADLINE,
            time,
            "for a tenant's server to begin TLS that passes through",
            "it is on the same machine"
        ),
        row!(
            END_BACKENDS_DEADLINE,
            time,
            "for a tenant's server to end its sessions at `pgs disable`, then the router does",
            "`pgs disable` promises to be done within a second"
        ),
        row!(
            KEEPER_RETURN_WAIT_DEFAULT,
            time,
            "how long new connections wait for a router that was killed",
            "a service manager starts it anew within seconds"
        ),
        row!(
            SECURE_RELAY_END_DEADLINE,
            time,
            "for sessions over TLS to close, when a router ends after `drain_deadline`",
            "`drain_deadline` is the key"
        ),
        row!(
            OPERATION_LOCK_DEADLINE,
            time,
            "how long a command waits for another on the same tenant",
            "it is told then, and can be repeated"
        ),
        row!(
            REGISTRY_BUSY_DEADLINE,
            time,
            "how long a command waits for another one's transaction",
            "each takes milliseconds"
        ),
        row!(
            SERVER_READY_DEADLINE,
            time,
            "for a tenant's server to answer after its start",
            "initialising takes seconds; `pgs start` can be repeated"
        ),
        row!(
            CONTAINER_STOP_GRACE,
            time,
            "for a tenant's server to stop before it is killed",
            "its last checkpoint"
        ),
    ]
}

/// Of one session, one container, the process.
fn of_sizes() -> [Row; 8] {
    [
        row!(
            DESCRIPTORS_PER_SESSION,
            number,
            "open files that a session is reckoned with",
            "its two sockets, and one of the kernel path"
        ),
        row!(
            DESCRIPTORS_RESERVED,
            number,
            "open files kept for the router itself",
            "the limit on open files is the key"
        ),
        row!(
            KEEPER_SLOTS_MAX,
            number,
            "sessions that can outlive a router",
            "seven times `sessions_max` by default"
        ),
        row!(
            WORKERS_MAX,
            number,
            "threads that move bytes, one for a core",
            "routers that take over from one another share a table of them"
        ),
        row!(
            TLS_RECORD_BYTES_MAX,
            bytes,
            "largest TLS record sent",
            "asynchronous use of libpq stands still at larger ones"
        ),
        row!(
            ADMIN_CONNECTIONS_MAX,
            number,
            "commands that `pgs serve` answers at once",
            "further ones wait"
        ),
        row!(
            CONTAINER_PIDS_MAX,
            number,
            "processes of a tenant's container",
            "a connection takes one, and `connections_max` is 1 000 by default"
        ),
        row!(
            EXEC_DEADLINE,
            time,
            "for one command of pgs's own in a tenant's container; `--init` files have no bound",
            "each takes a second at most, unless the tenant holds it up"
        ),
    ]
}

fn markdown() -> String {
    let mut table =
        "| bound | value | what it bounds | why it needs no key |\n|---|---|---|---|\n".to_owned();
    let rows = of_arrivals().into_iter().chain(of_strangers());
    let rows = rows.chain(of_formats()).chain(of_times());
    for row in rows.chain(of_sizes()) {
        let Row {
            name,
            value,
            what,
            why,
        } = row;
        table += &format!("| `{name}` | {value} | {what} | {why} |\n");
    }
    table
}

#[test]
fn the_documentation_has_the_values_of_the_fixed_bounds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    let table = markdown();
    assert!(
        documentation.contains(&table),
        "docs/configuration.md is to contain:\n{table}"
    );
}
