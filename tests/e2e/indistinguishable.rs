//! A client cannot tell pgs from PostgreSQL: the same exchange, once with the tenant's server
//! itself and once through the port, gives the same bytes, apart from what is drawn by lot.

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::PROTOCOL_3_2;
use pgs_tests::login::startup_packet;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("logins_are_the_same", logins_are_the_same),
    ("simple_queries_are_the_same", simple_queries_are_the_same),
    (
        "extended_queries_are_the_same",
        extended_queries_are_the_same,
    ),
    ("copy_is_the_same", copy_is_the_same),
];

/// Process id, key, nonce, salt and proof are drawn by lot; everything else has to be equal.
fn masked(mut message: Message) -> Message {
    let secret_from = match (message.kind, message.body.first_chunk()) {
        (b'K', _) => 0,
        (b'R', Some(&[0, 0, 0, 11 | 12])) => 4,
        _ => return message,
    };
    message.body[secret_from..].fill(0);
    message
}

/// Plays the same on both, and compares all that came back.
fn compare(
    stage: &Stage,
    name: &str,
    play: impl Fn(&mut Wire, &Login) -> anyhow::Result<Vec<Message>>,
) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    let socket = stage.installation()?.socket_of(&alpha.user);
    let run = |wire: anyhow::Result<Wire>| -> anyhow::Result<Vec<Message>> {
        let mut wire = wire?;
        let mut messages = play(&mut wire, alpha)?;
        while let Some(message) = wire.message_or_end()? {
            messages.push(message);
        }
        Ok(messages.into_iter().map(masked).collect())
    };
    let direct = run(Wire::connect_unix(&socket)).with_context(|| format!("{name}: directly"))?;
    let through = run(stage.connect()).with_context(|| format!("{name}: through the port"))?;
    ensure!(!direct.is_empty(), "{name}: nothing to compare");
    for (number, (direct, through)) in direct.iter().zip(&through).enumerate() {
        ensure!(
            direct == through,
            "{name}, message {number}:\n{direct:?}\n{through:?}"
        );
    }
    ensure!(
        direct.len() == through.len(),
        "{name}: {} and {}",
        direct.len(),
        through.len()
    );
    Ok(())
}

fn logins_are_the_same(stage: &Stage) -> anyhow::Result<()> {
    let log_in = |version, more: &'static [(&str, &str)], let_in: bool| {
        move |wire: &mut Wire, login: &Login| {
            let mut parameters = vec![("user", &login.user[..]), ("database", &login.database)];
            parameters.extend(more);
            wire.send(&startup_packet(version, &parameters))?;
            let greeting = wire.authenticate(&login.password)?;
            ensure!(greeting.refused().is_none() == let_in, "{greeting:?}");
            if let_in {
                wire.send_message(b'X', &[])?;
            }
            Ok(greeting.messages)
        }
    };
    let future: &[(&str, &str)] = &[("_pq_.a", "b"), ("_pq_.c", "")];
    let settings: &[(&str, &str)] = &[
        ("application_name", "Müller"),
        ("client_encoding", "LATIN1"),
        ("DateStyle", "SQL, DMY"),
        (
            "options",
            r"-c work_mem=7MB -c search_path=a,\ b --geqo=off",
        ),
    ];
    compare(stage, "protocol 3.0", log_in(PROTOCOL_3_0, &[], true))?;
    compare(stage, "protocol 3.2", log_in(PROTOCOL_3_2, &[], true))?;
    compare(
        stage,
        "protocol 3.9999",
        log_in(3 << 16 | 9999, future, true),
    )?;
    compare(stage, "settings", log_in(PROTOCOL_3_0, settings, true))?;
    compare(
        stage,
        "a setting unknown",
        log_in(PROTOCOL_3_0, &[("no_such", "1")], false),
    )?;
    compare(
        stage,
        "a bad value",
        log_in(PROTOCOL_3_0, &[("work_mem", "x")], false),
    )?;
    compare(
        stage,
        "no such database",
        log_in(PROTOCOL_3_0, &[("database", "absent")], false),
    )?;
    compare(
        stage,
        "no replication",
        log_in(PROTOCOL_3_0, &[("replication", "maybe")], false),
    )?;
    compare(stage, "a wrong password", |wire, login| {
        wire.send(&startup_packet(PROTOCOL_3_0, &[("user", &login.user)]))?;
        Ok(wire.authenticate("wrong")?.messages)
    })
}

fn simple_queries_are_the_same(stage: &Stage) -> anyhow::Result<()> {
    let queries = [
        "",
        ";",
        "select 1",
        "select 1; select 'two', null; show work_mem",
        "select 1 / 0",
        "begin; select nothing",
        "select 1",
        "rollback",
        "set application_name = 'other'; reset application_name",
        "do $$ begin raise notice 'a notice'; raise warning 'a warning'; end $$",
        "select repeat('x', 300000) from generate_series(1, 20)",
        "syntax error",
    ];
    for query in queries {
        compare(stage, query, |wire, login| {
            wire.log_in(login)?;
            let messages = wire.query(query)?;
            wire.send_message(b'X', &[])?;
            Ok(messages)
        })?;
    }
    Ok(())
}

fn extended_queries_are_the_same(stage: &Stage) -> anyhow::Result<()> {
    let parse = |sql: &str| (b'P', [b"s\0", sql.as_bytes(), b"\0\0\0"].concat());
    let bind = |value: &str| {
        let length = u32::try_from(value.len()).unwrap_or_default().to_be_bytes();
        (
            b'B',
            [b"\0s\0\0\0\0\x01", &length[..], value.as_bytes(), b"\0\0"].concat(),
        )
    };
    let describe = (b'D', b"P\0".to_vec());
    let execute = |rows: u8| (b'E', vec![0, 0, 0, 0, rows]);
    let sync = (b'S', Vec::new());
    let sql = "select i, $1::text from generate_series(1, 7) i";
    let exchanges = [
        vec![
            parse(sql),
            bind("x"),
            describe.clone(),
            execute(0),
            sync.clone(),
        ],
        vec![
            parse(sql),
            bind("y"),
            execute(3),
            execute(3),
            execute(3),
            sync.clone(),
        ],
        vec![parse("no sql"), bind("z"), execute(0), sync.clone()],
        vec![parse(sql), bind(&"long ".repeat(50_000)), execute(0), sync],
    ];
    for exchange in exchanges {
        compare(stage, "an extended query", |wire, login| {
            wire.log_in(login)?;
            for (kind, body) in &exchange {
                wire.send_message(*kind, body)?;
            }
            let messages = wire.until_ready()?;
            wire.send_message(b'X', &[])?;
            Ok(messages)
        })?;
    }
    Ok(())
}

fn copy_is_the_same(stage: &Stage) -> anyhow::Result<()> {
    compare(stage, "COPY out", |wire, login| {
        wire.log_in(login)?;
        let messages = wire.query("copy (select generate_series(1, 20000)) to stdout")?;
        wire.send_message(b'X', &[])?;
        Ok(messages)
    })?;
    for last in [(b'c', &b""[..]), (b'f', b"changed my mind\0")] {
        compare(stage, "COPY in", |wire, login| {
            wire.log_in(login)?;
            let mut messages = wire.query("create temp table t (i int)")?;
            wire.send_query("copy t from stdin")?;
            for i in 0..5000 {
                wire.send_message(b'd', format!("{i}\n").as_bytes())?;
            }
            wire.send_message(last.0, last.1)?;
            messages.extend(wire.until_ready()?);
            messages.extend(wire.query("select sum(i) from t")?);
            wire.send_message(b'X', &[])?;
            Ok(messages)
        })?;
    }
    // The connection ends in the middle of a COPY.
    compare(stage, "COPY in, cut short", |wire, login| {
        wire.log_in(login)?;
        let mut messages = wire.query("create temp table t (i int)")?;
        wire.send_query("copy t from stdin")?;
        wire.send_message(b'd', b"1\n")?;
        wire.shut_down_writing()?;
        while let Some(message) = wire.message_or_end()? {
            messages.push(message);
        }
        Ok(messages)
    })
}
