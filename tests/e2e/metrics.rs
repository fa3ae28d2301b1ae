//! What `pgs metrics` prints: of each tenant what happened at it, of strangers nothing, and of the
//! data path what was found at the start, as the log and the other commands say it too.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;
use serde_json::Value;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("each_tenant_has_its_own", each_tenant_has_its_own),
    (
        "a_flood_of_refusals_is_counted_and_leaves_few_lines",
        a_flood_of_refusals,
    ),
    (
        "what_the_canaries_found_is_said_everywhere",
        what_the_canaries_found,
    ),
];

const LIMIT: Duration = Duration::from_secs(10);

/// For all canaries: ten times what they are meant to take, for a machine that does much else.
const CANARIES_MILLISECONDS_MAX: u64 = 3_000;

/// Every sample by its name and labels, once each, as its text format has it.
pub(crate) fn scrape(router: &Router) -> anyhow::Result<BTreeMap<String, f64>> {
    let printed = router.pgs(&["metrics"])?;
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    for line in printed.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            if words.next() == Some("TYPE") {
                let name = words.next().context("no name")?.to_owned();
                let kind = words.next();
                ensure!(matches!(kind, Some("counter" | "gauge")), "{line}");
                ensure!(families.insert(name), "a family twice: {line}");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        let name = series.split('{').next().unwrap_or_default();
        ensure!(families.contains(name), "of no family: {line}");
        let before = samples.insert(series.to_owned(), value.parse()?);
        ensure!(before.is_none(), "a series twice: {line}");
    }
    Ok(samples)
}

/// The answer to a login with a password, or another one's name.
fn attempt(router: &Router, user: &str, password: &str) -> anyhow::Result<Message> {
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", user)]))?;
    let messages = wire.authenticate(password)?.messages;
    messages.last().cloned().context("no answer")
}

fn work(router: &Router, login: &Login) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect_tcp(router.address())?;
    let key = wire.log_in(login)?.key()?;
    ensure!(wire.query_value("select repeat('x', 100000)")?.len() == 100_000);
    wire.send_query("select pg_sleep(10)")?;
    std::thread::sleep(Duration::from_millis(200));
    let mut cancel = Wire::connect_tcp(router.address())?;
    cancel.send(&key.cancel_request())?;
    ensure!(cancel.receive_to_end()?.is_empty());
    wire.until_ready()?;
    Ok(wire)
}

fn each_tenant_has_its_own(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.installation()?.second_router("metrics")?;
    let (alpha, beta) = (stage.alpha()?, stage.beta()?);
    let live = work(&router, alpha)?;
    for _ in 0..2 {
        ensure!(attempt(&router, &alpha.user, "wrong")?.kind == b'E');
    }
    router.pgs(&["set", &beta.user, "allow=192.0.2.0/24"])?;
    let refused = attempt(&router, &beta.user, &beta.password);
    router.pgs(&["set", &beta.user, "--unset", "allow"])?;
    ensure!(refused?.sqlstate().as_deref() == Some("28000"));
    for stranger in ["nobody", "somebody", "\"} 1\nforged"] {
        let answer = attempt(&router, stranger, "x")?;
        ensure!(answer.sqlstate().as_deref() == Some("28000"), "{answer:?}");
    }

    // A client may hear of its failure before it is counted.
    let failed = "pgs_tenant_logins_failed_total{tenant=\"alpha\"}";
    let samples = process::eventually("both failures are counted", LIMIT, || {
        let samples = scrape(&router)?;
        Ok((samples.get(failed) == Some(&2.0)).then_some(samples))
    })?;
    let value = |series: &str| samples.get(series).copied().unwrap_or(-1.0);
    let tenants: BTreeSet<_> = samples
        .keys()
        .filter_map(|series| series.split("tenant=\"").nth(1)?.split('"').next())
        .collect();
    let expected = BTreeSet::from([&*alpha.user, &*beta.user]);
    ensure!(tenants == expected, "strangers have series: {tenants:?}");
    let at = |name: &str, tenant: &Login| value(&format!("{name}{{tenant=\"{}\"}}", tenant.user));
    ensure!(at("pgs_tenant_sessions_total", alpha) == 1.0, "{samples:?}");
    ensure!(
        at("pgs_tenant_cancels_routed_total", alpha) == 1.0,
        "{samples:?}"
    );
    ensure!(at("pgs_tenant_sessions_total", beta) == 0.0, "{samples:?}");
    let refusals = "pgs_tenant_refusals_total{tenant=\"beta\",reason=\"no_access\"}";
    ensure!(value(refusals) == 1.0, "{samples:?}");
    ensure!(value("pgs_refusals_total{reason=\"no_access\"}") == 4.0);
    ensure!(value("pgs_up") == 1.0 && value("pgs_configuration_good") == 1.0);
    let path = stage.path().as_str();
    let sessions = format!("pgs_tenant_sessions_live{{tenant=\"alpha\",path=\"{path}\"}}");
    ensure!(value(&sessions) == 1.0, "{samples:?}");

    // What is over still counts, and nothing counts twice.
    let to_client = |samples: &BTreeMap<String, f64>| -> f64 {
        ["kernel", "router"]
            .map(|by| format!("{{tenant=\"alpha\",by=\"{by}\",direction=\"to_client\"}}"))
            .iter()
            .filter_map(|labels| samples.get(&format!("pgs_tenant_bytes_total{labels}")))
            .sum()
    };
    let before = to_client(&samples);
    ensure!((100_000.0..110_000.0).contains(&before), "{before} bytes");
    drop(live);
    process::eventually("the session is over", LIMIT, || {
        Ok(router.sessions(&alpha.user)?.is_empty().then_some(()))
    })?;
    let after = to_client(&scrape(&router)?);
    ensure!(
        (before..before + 1_000.0).contains(&after),
        "{before}, then {after}"
    );

    let mut command = router.command();
    command.args(["metrics"]);
    drop(router);
    let printed = process::run(&mut command, LIMIT)?.success()?;
    ensure!(printed.ends_with("\npgs_up 0\n"), "{printed}");
    Ok(())
}

/// What is left out of the log is said at the router's end, too, so that nobody need wait for it.
fn a_flood_of_refusals(stage: &Stage) -> anyhow::Result<()> {
    const REFUSED: usize = 300;
    const WRITTEN: usize = 100;
    let mut router = stage.installation()?.second_router("flood")?;
    for _ in 0..REFUSED {
        let mut wire = Wire::connect_tcp(router.address())?;
        wire.send(&startup_packet(PROTOCOL_3_0, &[("database", "x")]))?;
        ensure!(wire.message()?.sqlstate().as_deref() == Some("28000"));
    }
    let counted = scrape(&router)?;
    let counted = counted.get("pgs_refusals_total{reason=\"missing_user\"}");
    ensure!(counted == Some(&(REFUSED as f64)), "{counted:?}");
    router.signal(Signal::SIGTERM)?;
    router.wait(LIMIT)?.context("it does not end")?;
    let log = router.log();
    let of_it: Vec<_> = log
        .lines()
        .filter(|line| line.contains("\"missing_user\""))
        .collect();
    let written = of_it
        .iter()
        .filter(|line| line.contains("connection refused"))
        .count();
    let said = format!("lines={}", REFUSED - WRITTEN);
    let said = of_it.last().is_some_and(|line| line.contains(&said));
    ensure!(written == WRITTEN && said, "{written} lines:\n{log}");
    Ok(())
}

fn what_the_canaries_found(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let (status, samples) = (router.status()?, scrape(router)?);
    let shown = router.pgs(&["status"])?;
    let series = |name: &str| {
        let of_it = samples.iter().filter(|(one, _)| one.starts_with(name));
        of_it.map(|(_, value)| *value).collect::<Vec<_>>()
    };
    ensure!(series("pgs_path_fallback").is_empty(), "{samples:?}");
    ensure!(series("pgs_path_one_way") == [0.0], "{samples:?}");
    ensure!(status["path_fallback"].is_null(), "{status}");
    let canaries = status["canaries"].as_array().context("no canaries")?.len();
    let passed = series("pgs_canary_passed");
    if stage.path() == DataPath::Relay {
        ensure!(canaries == 0 && passed.is_empty(), "{status} {samples:?}");
        ensure!(!shown.contains("\ncanaries "), "{shown}");
        return Ok(());
    }
    ensure!(
        canaries >= 5 && passed == vec![1.0; canaries],
        "{samples:?}"
    );
    let took = status["canaries_milliseconds"].as_u64();
    let took = took.context("not how long they took")?;
    ensure!(took <= CANARIES_MILLISECONDS_MAX, "{took} ms");
    let line = format!("\ncanaries  all {canaries} passed, in {took} ms\n");
    ensure!(shown.contains(&line), "{shown}");
    let log = router.log();
    let line = log.lines().find(|line| line.contains("canaries done"));
    let line = line.context("not a line in the log")?;
    for word in [
        "INFO",
        &format!("passed={canaries}"),
        &format!("milliseconds={took}"),
    ] {
        ensure!(line.contains(word), "{word}: {line}");
    }
    // Whether the doctor's own canaries pass is another question, and so is its exit code.
    let doctor = process::run(router.command().args(["doctor"]), LIMIT)?;
    let mut lines = doctor.stdout.lines();
    let line = lines.find(|line| line.starts_with("canaries "));
    let line = line.with_context(|| doctor.stdout.clone())?;
    ensure!(
        line.contains(" passed, in ") || line.contains(" failed, in "),
        "{line}"
    );
    let doctor = process::run(router.command().args(["doctor", "--json"]), LIMIT)?;
    let printed: Value = serde_json::from_str(&doctor.stdout)?;
    let took = printed["canaries_milliseconds"].as_u64();
    let took = took.context("the doctor does not say how long they took")?;
    ensure!(took <= CANARIES_MILLISECONDS_MAX, "{took} ms");
    Ok(())
}
