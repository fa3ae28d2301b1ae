//! What may arrive first on the port, and what it gets: the same as from PostgreSQL itself.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::first_packet;
use pgs_tests::login::startup_packet;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("first_packets_get_what_postgresql_gives", first_packets),
    ("a_startup_packet_one_byte_at_a_time", one_byte_at_a_time),
    (
        "a_probe_that_says_nothing_is_closed_silently",
        a_silent_probe,
    ),
    (
        "a_future_version_is_negotiated",
        a_future_version_is_negotiated,
    ),
];

const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;

/// How long nothing comes before it counts as "waits for more".
const QUIET: Duration = Duration::from_millis(400);

enum Act {
    Send(Vec<u8>),
    /// So many bytes of an answer.
    Expect(usize),
    /// Says that nothing more will come.
    HalfClose,
}

struct Case {
    name: &'static str,
    acts: Vec<Act>,
    /// Beginning of the answer, as people should see it: SQLSTATE, or nothing.
    refusal: Option<&'static str>,
}

/// What came back, without what may differ: pgs has no source files to name, and gives hints.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    answers: Vec<u8>,
    refusal: Vec<String>,
    rest: Vec<u8>,
    closed: bool,
}

fn play(wire: &mut Wire, acts: &[Act]) -> anyhow::Result<Outcome> {
    let mut answers = Vec::new();
    for act in acts {
        match act {
            Act::Send(bytes) => wire.send(bytes)?,
            Act::Expect(length) => answers.extend(wire.receive(*length)?),
            Act::HalfClose => wire.shut_down_writing()?,
        }
    }
    let (rest, closed) = wire.receive_until_quiet(QUIET)?;
    let (refusal, rest) = split_refusal(rest);
    Ok(Outcome {
        answers,
        refusal,
        rest,
        closed,
    })
}

fn split_refusal(bytes: Vec<u8>) -> (Vec<String>, Vec<u8>) {
    // An answer of one letter may come right before a refusal.
    let skipped = bytes.iter().take_while(|byte| **byte == b'N').count();
    let is_error = bytes.get(skipped) == Some(&b'E') && bytes.len() > skipped + 5;
    // In protocol 2 there is no length word but a text.
    if !is_error || bytes.get(skipped + 1) != Some(&0) {
        return (Vec::new(), bytes);
    }
    let message = Message {
        kind: b'E',
        body: bytes[skipped + 5..].to_vec(),
    };
    let fields = b"SVCMD".iter().filter_map(|code| {
        message
            .field(*code)
            .map(|text| format!("{}{text}", char::from(*code)))
    });
    (fields.collect(), bytes[..skipped].to_vec())
}

fn case(name: &'static str, acts: Vec<Act>, refusal: Option<&'static str>) -> Case {
    Case {
        name,
        acts,
        refusal,
    }
}

fn negotiations(user: &str) -> Vec<Case> {
    let (ssl, gss) = (
        first_packet(SSL_REQUEST, b""),
        first_packet(GSSENC_REQUEST, b""),
    );
    let startup = startup_packet(PROTOCOL_3_0, &[("user", user)]);
    let ask = |packet: &[u8]| [Act::Send(packet.to_vec()), Act::Expect(1)];
    let then = |first: &[u8], second: &[u8], last: &[u8]| {
        let mut acts: Vec<Act> = ask(first).into_iter().chain(ask(second)).collect();
        acts.push(Act::Send(last.to_vec()));
        acts
    };
    let twice = |packet: &[u8]| {
        let mut acts: Vec<Act> = ask(packet).into();
        acts.push(Act::Send(packet.to_vec()));
        acts
    };
    let together = |first: &[u8]| vec![Act::Send([first, &startup].concat())];
    vec![
        case(
            "SSLRequest, then GSSENCRequest",
            then(&ssl, &gss, &startup),
            None,
        ),
        case(
            "GSSENCRequest, then SSLRequest",
            then(&gss, &ssl, &startup),
            None,
        ),
        case("SSLRequest twice", twice(&ssl), Some("0A000")),
        case("GSSENCRequest twice", twice(&gss), Some("0A000")),
        case(
            "SSLRequest, GSSENCRequest, SSLRequest",
            then(&ssl, &gss, &ssl),
            Some("0A000"),
        ),
        case(
            "a startup packet behind SSLRequest",
            together(&ssl),
            Some("08P01"),
        ),
        case(
            "a startup packet behind GSSENCRequest",
            together(&gss),
            Some("08P01"),
        ),
        case("SSLRequest, then nothing", ask(&ssl).into(), None),
        case(
            "half an SSLRequest, then the end",
            vec![Act::Send(ssl[..5].to_vec()), Act::HalfClose],
            None,
        ),
    ]
}

fn malformed(user: &str) -> Vec<Case> {
    let send = |bytes: &[u8]| vec![Act::Send(bytes.to_vec())];
    let named = format!("user\0{user}\0");
    let packet = |code, body: &str| send(&first_packet(code, body.as_bytes()));
    let key = [0x5a; 257];
    vec![
        case("a length of 0", send(&[0; 8]), None),
        case("a length of 4", send(b"\0\0\0\x04"), None),
        case("a length of 7", send(b"\0\0\0\x07\0\x03\0"), None),
        case("a length of 10 005", send(b"\0\0\x27\x15\0\x03\0\0"), None),
        case(
            "a length of 10 004 and no more",
            send(b"\0\0\x27\x14\0\x03\0\0"),
            None,
        ),
        case("the largest length", send(&[0xff; 8]), None),
        case(
            "HTTP",
            send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            None,
        ),
        case(
            "a TLS ClientHello",
            send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"),
            None,
        ),
        case("protocol 2.0", packet(2 << 16, &format!("{named}\0")), None),
        case(
            "protocol 0.0",
            packet(0, &format!("{named}\0")),
            Some("0A000"),
        ),
        case(
            "protocol 4.0",
            packet(4 << 16, &format!("{named}\0")),
            Some("0A000"),
        ),
        case(
            "no user",
            packet(PROTOCOL_3_0, "database\0x\0\0"),
            Some("28000"),
        ),
        case(
            "an empty user",
            packet(PROTOCOL_3_0, "user\0\0\0"),
            Some("28000"),
        ),
        case("nothing at all", packet(PROTOCOL_3_0, ""), Some("08P01")),
        case("no terminator", packet(PROTOCOL_3_0, &named), Some("08P01")),
        case(
            "two terminators",
            packet(PROTOCOL_3_0, &format!("{named}\0\0")),
            Some("08P01"),
        ),
        case(
            "a CancelRequest without a key",
            send(&first_packet(CANCEL_REQUEST, b"pid!")),
            None,
        ),
        case(
            "a CancelRequest too long",
            send(&first_packet(CANCEL_REQUEST, &key)),
            None,
        ),
    ]
}

fn first_packets(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    let socket = stage.installation()?.socket_of(&alpha.user);
    let mut differences = String::new();
    for Case {
        name,
        acts,
        refusal,
    } in negotiations(&alpha.user)
        .into_iter()
        .chain(malformed(&alpha.user))
    {
        let direct = play(&mut Wire::connect_unix(&socket)?, &acts)
            .with_context(|| format!("{name}: from PostgreSQL itself"))?;
        let through = play(&mut stage.connect()?, &acts).with_context(|| name.to_owned());
        let code = direct
            .refusal
            .iter()
            .find_map(|field| field.strip_prefix('C'));
        ensure!(code == refusal, "{name}: PostgreSQL itself says {direct:?}");
        match through {
            Ok(through) if through == direct => {}
            through => differences += &format!("\n{name}:\n  {direct:?}\n  {through:?}"),
        }
    }
    ensure!(
        differences.is_empty(),
        "PostgreSQL's answer, then pgs's:{differences}"
    );
    Ok(())
}

fn one_byte_at_a_time(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    let mut wire = stage.connect()?;
    for packet in [
        first_packet(SSL_REQUEST, b""),
        startup_packet(
            PROTOCOL_3_0,
            &[("user", &alpha.user), ("database", &alpha.database)],
        ),
    ] {
        for byte in packet {
            wire.send(&[byte])?;
            std::thread::sleep(Duration::from_millis(2));
        }
        if wire.peek()? == b'N' {
            wire.receive(1)?;
        }
    }
    let greeting = wire.authenticate(&alpha.password)?;
    ensure!(greeting.refused().is_none(), "{greeting:?}");
    ensure!(wire.query_value("select 1")? == "1");
    Ok(())
}

fn a_silent_probe(stage: &Stage) -> anyhow::Result<()> {
    for beginning in [&b""[..], b"\0", b"\0\0\0"] {
        let mut wire = stage.connect()?;
        wire.send(beginning)?;
        wire.shut_down_writing()?;
        ensure!(
            wire.receive_to_end()?.is_empty(),
            "{beginning:?} was answered"
        );
    }
    Ok(())
}

fn a_future_version_is_negotiated(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    let mut wire = stage.connect()?;
    let parameters = [
        ("user", &alpha.user[..]),
        ("_pq_.test_protocol_negotiation", ""),
        ("_pq_.x", "y"),
    ];
    wire.send(&startup_packet(3 << 16 | 9999, &parameters))?;
    let greeting = wire.authenticate(&alpha.password)?;
    ensure!(greeting.refused().is_none(), "{greeting:?}");
    let negotiated = greeting
        .messages
        .iter()
        .find(|message| message.kind == b'v');
    let body = &negotiated.context("no NegotiateProtocolVersion")?.body;
    ensure!(body.starts_with(b"\0\x03\0\x02\0\0\0\x02"), "{body:?}");
    ensure!(
        greeting.key()?.secret.len() == 32,
        "not the key of protocol 3.2"
    );
    ensure!(wire.query_value("select 1")? == "1");
    Ok(())
}
