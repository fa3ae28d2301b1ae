//! One tenant's users against another tenant: twins, with the same roles, databases and process
//! ids, and whoever owns the one tries to reach the other.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use pgs_tests::login::BackendKey;
use pgs_tests::login::Greeting;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::tenant::Tenant;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("the_same_process_id_gives_no_hold", same_process_id),
    ("the_same_role_opens_one_door_only", same_role),
    ("nothing_is_heard_through_the_same_names", same_names),
    ("no_error_and_no_log_names_the_other", no_word_of_the_other),
    ("no_log_line_can_be_forged", no_forged_log_line),
    ("a_hostile_server_reaches_nobody_else", hostile_server),
    ("cancel_keys_cannot_be_probed_by_time", cancel_timing),
];

/// A role and a database that both twins have, with different passwords.
const ROLE: &str = "worker";
const DATABASE: &str = "app";

/// How many sessions it takes at most until both servers have given out the same process id: each
/// of their health checks uses up some.
const SESSIONS_MAX: usize = 400;

/// A session begins, for its client, a moment before it is logged.
const LOGGED: Duration = Duration::from_secs(5);

struct Twins<'a> {
    stage: &'a Stage,
    victim: Tenant<'a>,
    attacker: Tenant<'a>,
}

impl<'a> Twins<'a> {
    fn make(stage: &'a Stage) -> anyhow::Result<Self> {
        let installation = stage.installation()?;
        let arguments = ["--enable", "--superuser"];
        let twins = Self {
            stage,
            victim: installation.create_tenant_with("victim", &arguments)?,
            attacker: installation.create_tenant_with("attacker", &arguments)?,
        };
        for tenant in [&twins.victim, &twins.attacker] {
            let mut wire = stage.log_in(tenant.login())?;
            for sql in [
                format!(
                    "create role {ROLE} login password '{}'",
                    password_in(tenant)
                ),
                format!("create database {DATABASE} owner {ROLE}"),
            ] {
                let answer = wire.query(&sql)?;
                ensure!(
                    answer.iter().all(|message| message.kind != b'E'),
                    "{answer:?}"
                );
            }
        }
        Ok(twins)
    }

    /// The shared role, at one of the two: with the same startup packet but for the tenant's name.
    fn greet(&self, tenant: &Tenant<'_>, password: &str) -> anyhow::Result<(Wire, Greeting)> {
        let mut wire = self.stage.connect()?;
        let options = format!("-c pgs.tenant={}", tenant.id());
        let parameters = [
            ("user", ROLE),
            ("database", DATABASE),
            ("options", &options),
        ];
        wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
        let greeting = wire.authenticate(password)?;
        Ok((wire, greeting))
    }

    fn work(&self, tenant: &Tenant<'_>) -> anyhow::Result<(Wire, BackendKey)> {
        let (wire, greeting) = self.greet(tenant, &password_in(tenant))?;
        ensure!(greeting.refused().is_none(), "{greeting:?}");
        let key = greeting.key()?;
        Ok((wire, key))
    }

    /// A session of each, with the same process id.
    fn same_process_id(&self) -> anyhow::Result<[(Wire, BackendKey); 2]> {
        let mut victim = self.work(&self.victim)?;
        let mut attacker = self.work(&self.attacker)?;
        for _ in 0..SESSIONS_MAX {
            let [one, other] = [&victim, &attacker].map(|(_, key)| key.process_id);
            match u32::from_be_bytes(one).cmp(&u32::from_be_bytes(other)) {
                std::cmp::Ordering::Equal => return Ok([victim, attacker]),
                std::cmp::Ordering::Less => victim = self.work(&self.victim)?,
                std::cmp::Ordering::Greater => attacker = self.work(&self.attacker)?,
            }
        }
        bail!("no process id is common to both within {SESSIONS_MAX} sessions")
    }
}

fn password_in(tenant: &Tenant<'_>) -> String {
    format!("work at {}", tenant.id())
}

fn states(messages: &[Message]) -> Vec<String> {
    messages.iter().filter_map(Message::sqlstate).collect()
}

fn cancel(stage: &Stage, key: &BackendKey) -> anyhow::Result<()> {
    let mut wire = stage.connect()?;
    wire.send(&key.cancel_request())?;
    ensure!(wire.receive_to_end()?.is_empty());
    Ok(())
}

fn same_process_id(stage: &Stage) -> anyhow::Result<()> {
    let twins = Twins::make(stage)?;
    let [(mut victim, victims_key), (mut attacker, key)] = twins.same_process_id()?;
    let process_id = u32::from_be_bytes(key.process_id);
    victim.send_query("select pg_sleep(4)")?;
    // The attacker's own key, the victim's process id with other keys, and the server's own means.
    attacker.send_query("select pg_sleep(60)")?;
    std::thread::sleep(Duration::from_millis(300));
    cancel(stage, &key)?;
    ensure!(states(&attacker.until_ready()?) == ["57014"]);
    for bit in 0..8 {
        let mut guess = victims_key.clone();
        guess.secret[0] ^= 1 << bit;
        cancel(stage, &guess)?;
    }
    let mut chief = stage.log_in(twins.attacker.login())?;
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let done = chief.query_value(&format!("select {function}({process_id})"))?;
        ensure!(done == "t", "{function}: {done}");
    }
    ensure!(
        attacker.until_ready().is_err(),
        "the attacker's own backend lives on"
    );
    let answer = victim.until_ready()?;
    ensure!(states(&answer).is_empty(), "the victim was hit: {answer:?}");
    ensure!(victim.query_value("select 1")? == "1");
    Ok(())
}

fn same_role(stage: &Stage) -> anyhow::Result<()> {
    let twins = Twins::make(stage)?;
    let (attackers, victims) = (password_in(&twins.attacker), password_in(&twins.victim));
    let (_, greeting) = twins.greet(&twins.victim, &attackers)?;
    ensure!(
        greeting.refused().as_deref() == Some("28P01"),
        "{greeting:?}"
    );
    let (_, greeting) = twins.greet(&twins.attacker, &victims)?;
    ensure!(
        greeting.refused().as_deref() == Some("28P01"),
        "{greeting:?}"
    );
    // A user that is a tenant's id leads there, whatever database is named.
    let mixed = Login {
        user: twins.attacker.id().into(),
        database: twins.victim.id().into(),
        password: twins.attacker.login().password.clone(),
    };
    let mut wire = stage.connect()?;
    let refused = wire
        .log_in(&mixed)
        .err()
        .context("a database of another tenant opens")?;
    ensure!(format!("{refused:#}").contains("3D000"), "{refused:#}");
    let (mut wire, _) = twins.work(&twins.attacker)?;
    wire.query("create table marker as select 'attacker' as whose")?;
    let (mut wire, _) = twins.work(&twins.victim)?;
    ensure!(states(&wire.query("select * from marker")?) == ["42P01"]);
    Ok(())
}

fn same_names(stage: &Stage) -> anyhow::Result<()> {
    let twins = Twins::make(stage)?;
    let (mut victim, _) = twins.work(&twins.victim)?;
    let (mut attacker, _) = twins.work(&twins.attacker)?;
    victim.query("listen news")?;
    let locked = "select pg_try_advisory_lock(42)";
    ensure!(victim.query_value(locked)? == "t" && attacker.query_value(locked)? == "t");
    attacker.query("notify news, 'from the other side'")?;
    let answer = victim.query("select 1")?;
    ensure!(
        answer.iter().all(|message| message.kind != b'A'),
        "{answer:?}"
    );
    let count = "select count(*) from pg_stat_activity where usename = 'worker'";
    ensure!(attacker.query_value(count)? == "1");
    let sessions = stage.router()?.sessions(twins.attacker.id())?;
    ensure!(
        sessions
            .iter()
            .all(|session| session["tenant"] == twins.attacker.id()),
        "{sessions:?}"
    );
    Ok(())
}

/// What an attacker is told, by pgs and by its own server, while the victim works and fails.
fn no_word_of_the_other(stage: &Stage) -> anyhow::Result<()> {
    let twins = Twins::make(stage)?;
    let router = stage.router()?;
    // In other scenarios the attacker names the victim itself.
    let before = router.log().len();
    let secret = "a table of the victim";
    let (mut victim, _) = twins.work(&twins.victim)?;
    victim.query(&format!("select * from \"{secret}\""))?;
    twins.greet(&twins.victim, "wrong")?;
    let mut told = Vec::new();
    let (_, greeting) = twins.greet(&twins.attacker, "wrong")?;
    told.extend(greeting.messages);
    let (mut attacker, _) = twins.work(&twins.attacker)?;
    for sql in [
        "select * from nowhere",
        "select 1/0",
        "select pg_read_file('/etc/shadow')",
    ] {
        told.extend(attacker.query(sql)?);
    }
    router.pgs(&["set", twins.attacker.id(), "connections_max=1"])?;
    let (_, greeting) = twins.greet(&twins.attacker, "whatever")?;
    ensure!(
        greeting.refused().as_deref() == Some("53300"),
        "{greeting:?}"
    );
    told.extend(greeting.messages);
    router.pgs(&["set", twins.attacker.id(), "--unset", "connections_max"])?;
    router.pgs(&["stop", twins.attacker.id()])?;
    let (_, greeting) = twins.greet(&twins.attacker, "whatever")?;
    ensure!(
        greeting.refused().as_deref() == Some("57P03"),
        "{greeting:?}"
    );
    told.extend(greeting.messages);
    let state = stage.installation()?.state_directory();
    let state = state.to_string_lossy();
    for message in &told {
        let text = String::from_utf8_lossy(&message.body);
        for word in [twins.victim.id(), secret, &state] {
            ensure!(!text.contains(word), "told of {word:?}: {message:?}");
        }
    }
    // What each server logs is about itself alone, and so is each line of the router's.
    let logs = router.pgs(&["logs", twins.victim.id()])?;
    ensure!(logs.contains(secret), "the victim's own log: {logs}");
    let logs = router.pgs(&["logs", twins.attacker.id()])?;
    ensure!(
        !logs.contains(twins.victim.id()) && !logs.contains(secret),
        "{logs}"
    );
    let both = |line: &&str| {
        line.contains(&format!("tenant={}", twins.attacker.id()))
            && line.contains(twins.victim.id())
    };
    let log = router.log().split_off(before);
    ensure!(log.contains(&format!("tenant={}", twins.attacker.id())));
    let line = log.lines().find(both);
    ensure!(line.is_none(), "{line:?}");
    Ok(())
}

/// Names that a client makes up are in the router's log, and stay within their line.
fn no_forged_log_line(stage: &Stage) -> anyhow::Result<()> {
    let twins = Twins::make(stage)?;
    // Within the 63 bytes of a name.
    let forged = "all is lost tenant=victim";
    let role = format!("evil\n2026-01-01T00:00Z INFO {forged}\u{1b}[2J");
    let mut chief = stage.log_in(twins.attacker.login())?;
    chief.query(&format!("create role \"{role}\" login password 'evil'"))?;
    let login = Login {
        user: role,
        database: twins.attacker.id().into(),
        password: "evil".into(),
    };
    let _evil = stage.log_in(&login)?;
    let router = stage.router()?;
    let log = process::eventually("the role is logged", LOGGED, || {
        Ok(Some(router.log()).filter(|log| log.contains(forged)))
    })?;
    for line in log.lines().filter(|line| line.contains(forged)) {
        ensure!(line.contains("tenant=attacker user=\"evil\\"), "{line}");
        ensure!(!line.contains('\u{1b}'), "a control character: {line:?}");
    }
    let shown = stage.router()?.pgs(&["sessions", twins.attacker.id()])?;
    ensure!(
        !shown.contains('\u{1b}') && !shown.contains("\n2026-"),
        "{shown:?}"
    );
    Ok(())
}

/// A superuser can run programs in its container: whatever it puts in the place of its socket, it
/// is not let through to the neighbour's.
fn hostile_server(stage: &Stage) -> anyhow::Result<()> {
    let twins = Twins::make(stage)?;
    let mut chief = stage.log_in(twins.attacker.login())?;
    let mut run = |program: &str| {
        chief.query("create temp table if not exists said (line text)")?;
        chief.query("truncate said")?;
        let answer = chief.query(&format!("copy said from program '{program}'"))?;
        ensure!(states(&answer).is_empty(), "{program}: {answer:?}");
        chief.query_value("select coalesce(string_agg(line, ' '), '') from said")
    };
    let sockets = "/var/run/postgresql";
    let seen = run(&format!("ls -A {sockets}"))?;
    ensure!(
        seen.split(' ')
            .all(|name| name.starts_with(".s.PGSQL.5432")),
        "{seen}"
    );
    let devices = run("ls /sys/class/net")?;
    ensure!(devices == "lo", "network devices: {devices}");
    let victims = format!("../{}/.s.PGSQL.5432", twins.victim.id());
    run(&format!("mv {sockets}/.s.PGSQL.5432 {sockets}/.aside"))?;
    run(&format!("ln -s {victims} {sockets}/.s.PGSQL.5432"))?;
    let options = format!("-c pgs.tenant={}", twins.attacker.id());
    let mut wire = stage.connect()?;
    let parameters = [
        ("user", ROLE),
        ("database", DATABASE),
        ("options", &options),
    ];
    wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
    let first = wire.message()?;
    ensure!(first.kind == b'E', "led to somebody's server: {first:?}");
    ensure!(first.sqlstate().as_deref() == Some("58000"), "{first:?}");
    let text = String::from_utf8_lossy(&first.body);
    ensure!(
        !text.contains(twins.victim.id()) && !text.contains("sockets"),
        "{text}"
    );
    // The victim has noticed nothing.
    let (mut victim, _) = twins.work(&twins.victim)?;
    ensure!(victim.query_value("select 1")? == "1");
    Ok(())
}

/// Whether a process id is anybody's cannot be told by how long a wrong key takes.
fn cancel_timing(stage: &Stage) -> anyhow::Result<()> {
    const ROUNDS: usize = 101;
    /// Differences below this drown in what a network adds.
    const NOTHING: Duration = Duration::from_micros(300);
    let twins = Twins::make(stage)?;
    let (_victim, key) = twins.work(&twins.victim)?;
    let wrong = |process_id| BackendKey {
        process_id,
        secret: vec![7; 4],
    };
    let live = wrong(key.process_id);
    let nobodys = wrong(0x7fff_fff0_u32.to_be_bytes());
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        // One of them twice: how much two of the same kind differ is the noise of this run.
        for (times, key) in times.iter_mut().zip([&live, &nobodys, &nobodys]) {
            let begun = Instant::now();
            cancel(stage, key)?;
            times.push(begun.elapsed());
        }
    }
    let [live, nobodys, again] = times.map(|mut times: Vec<Duration>| {
        times.sort_unstable();
        times[ROUNDS / 2]
    });
    let noise = nobodys.abs_diff(again);
    let bound = (noise * 3).max(NOTHING);
    ensure!(
        live.abs_diff(nobodys) <= bound,
        "{live:?} for a live process id, {nobodys:?} for nobody's, noise {noise:?}"
    );
    Ok(())
}
