//! Who gets in, and what the others are told.

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::skip::Skip;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("a_wrong_password_fails", a_wrong_password_fails),
    (
        "the_internal_superuser_stays_inside",
        the_internal_superuser_stays_inside,
    ),
    (
        "unknown_and_disabled_get_the_same_bytes",
        unknown_and_disabled_get_the_same_bytes,
    ),
    (
        "disable_ends_sessions_and_enable_lets_in",
        disable_ends_sessions_and_enable_lets_in,
    ),
    (
        "disable_waits_for_no_server_and_no_docker",
        disable_waits_for_nobody,
    ),
    (
        "disable_without_a_router_says_what_goes_on",
        disable_without_a_router,
    ),
    (
        "disable_can_leave_sessions_alone",
        disable_can_leave_sessions_alone,
    ),
];

/// How soon `pgs disable` ends the sessions, from when it is typed.
const PROMPT: Duration = Duration::from_secs(1);

const DOCKER_LIMIT: Duration = Duration::from_secs(30);

fn a_wrong_password_fails(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    for password in ["", "wrong", &stage.beta()?.password] {
        let mut wire = stage.connect()?;
        wire.send(&startup_packet(PROTOCOL_3_0, &[("user", &alpha.user)]))?;
        let greeting = wire.authenticate(password)?;
        ensure!(
            greeting.refused().as_deref() == Some("28P01"),
            "{password:?}: {greeting:?}"
        );
        ensure!(
            wire.receive_to_end()?.is_empty(),
            "something follows the refusal"
        );
    }
    Ok(())
}

/// Whatever the name of the internal superuser is: `postgres` must not get in either.
fn the_internal_superuser_stays_inside(stage: &Stage) -> anyhow::Result<()> {
    let alpha = stage.alpha()?;
    let superusers = "select string_agg(rolname, ',') from pg_roles where rolsuper and rolcanlogin";
    let superusers = stage.log_in(alpha)?.query_value(superusers)?;
    ensure!(
        !superusers.split(',').any(|role| role == alpha.user),
        "alpha is a superuser"
    );
    for role in superusers.split(',').chain(["postgres", "pgs"]) {
        for password in ["", &alpha.password] {
            let mut wire = stage.connect()?;
            let parameters = [("user", role), ("database", &alpha.database[..])];
            wire.send(&startup_packet(PROTOCOL_3_0, &parameters))?;
            let refused = wire.authenticate(password)?.refused();
            ensure!(
                refused.is_some_and(|state| state.starts_with("28")),
                "{role} gets in"
            );
        }
    }
    Ok(())
}

fn refusal(stage: &Stage, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut wire = stage.connect()?;
    wire.send(&startup_packet(
        PROTOCOL_3_0,
        &[("user", name), ("database", name)],
    ))?;
    wire.receive_to_end()
}

fn unknown_and_disabled_get_the_same_bytes(stage: &Stage) -> anyhow::Result<()> {
    let (disabled, unknown) = ("closed", "absent");
    let tenant = stage.installation()?.create_tenant_with(disabled, &[])?;
    // The names are of one length, so the lengths within the messages are equal too.
    let of_disabled = refusal(stage, tenant.id())?.escape_ascii().to_string();
    let of_unknown = refusal(stage, unknown)?.escape_ascii().to_string();
    ensure!(
        of_disabled.replace(disabled, unknown) == of_unknown,
        "{of_disabled:?} {of_unknown:?}"
    );
    ensure!(
        of_unknown.contains(r"\x00VFATAL\x00C28000\x00M"),
        "{of_unknown:?}"
    );
    ensure!(of_unknown.contains(r"\x00H"), "no hint: {of_unknown:?}");
    Ok(())
}

/// Of these the sessions may end later, or without a word.
const SLOW_ROUNDS_MAX: usize = 2;

fn disable_ends_sessions_and_enable_lets_in(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant_with("onoff", &[])?;
    let login: &Login = tenant.login();
    ensure!(
        stage.log_in(login).is_err(),
        "a new tenant lets in before it is enabled"
    );
    // On a machine at its limits Docker may take longer than it is waited for: once or twice.
    let (mut prompt, mut slow) = (0, Vec::new());
    while prompt < 2 {
        ensure!(slow.len() <= SLOW_ROUNDS_MAX, "{slow:?}");
        router.pgs(&["enable", tenant.id()])?;
        let mut idle = stage.log_in(login).context("right after `pgs enable`")?;
        let mut busy = stage.log_in(login)?;
        busy.send_query("select pg_sleep(60)")?;
        std::thread::sleep(Duration::from_millis(200));
        let mut bystander = stage.log_in(stage.alpha()?)?;
        let begun = Instant::now();
        router.pgs(&["disable", tenant.id()])?;
        let mut states = Vec::new();
        for (name, wire) in [("idle", &mut idle), ("busy", &mut busy)] {
            let told = std::iter::from_fn(|| wire.message_or_end().transpose());
            let told = told
                .collect::<Result<Vec<_>, _>>()
                .with_context(|| name.to_owned())?;
            states.push(told.last().and_then(Message::sqlstate));
        }
        let took = begun.elapsed();
        let told = states.iter().all(|state| state.as_deref() == Some("57P01"));
        if told && took < PROMPT {
            prompt += 1;
        } else {
            slow.push(format!("{states:?} after {took:?}"));
        }
        ensure!(stage.log_in(login).is_err(), "lets in after `pgs disable`");
        ensure!(
            bystander.query_value("select 1")? == "1",
            "another tenant was hit"
        );
    }
    Ok(())
}

/// Stands still while this lives.
struct Stopped(Pid);

impl Stopped {
    /// The postmaster is the first process of its container.
    fn postmaster(stage: &Stage, tenant: &str) -> anyhow::Result<Self> {
        let state = stage.installation()?.state_directory();
        let of = format!("label=dev.pgs.state-dir={}", state.display());
        let whose = format!("label=dev.pgs.tenant={tenant}");
        let list = ["ps", "--quiet", "--filter", &of, "--filter", &whose];
        let container = process::run(Command::new("docker").args(list), DOCKER_LIMIT)?.success()?;
        let inspect = ["inspect", "--format", "{{.State.Pid}}", container.trim()];
        let pid = process::run(Command::new("docker").args(inspect), DOCKER_LIMIT)?.success()?;
        let pid = Pid::from_raw(pid.trim().parse()?);
        ensure!(pid.as_raw() > 1, "the container does not run");
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // A server that is gone stands no more.
        kill(self.0, Signal::SIGCONT).ok();
    }
}

/// A superuser of the tenant can stop his server, and Docker can hang: sessions end all the same.
fn disable_waits_for_nobody(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant("stuck")?;
    let docker = stage.installation()?.scratch("docker.sock");
    // Takes connections, and answers nothing.
    let _listener = UnixListener::bind(&docker)?;
    let docker = format!("unix://{}", docker.display());
    for (what, docker) in [("server", None), ("Docker", Some(docker))] {
        router.pgs(&["enable", tenant.id()])?;
        let mut idle = stage.log_in(tenant.login())?;
        let mut busy = stage.log_in(tenant.login())?;
        busy.send_query("select pg_sleep(60)")?;
        std::thread::sleep(Duration::from_millis(200));
        let stopped = match docker {
            None => Some(Stopped::postmaster(stage, tenant.id())?),
            Some(_) => None,
        };
        let mut disable = router.command();
        disable
            .args(["disable", tenant.id()])
            .envs(docker.map(|to| ("DOCKER_HOST", to)));
        let begun = Instant::now();
        let disabled = process::run(&mut disable, DOCKER_LIMIT)?;
        for wire in [&mut idle, &mut busy] {
            let (_, ended) = wire.receive_until_quiet(PROMPT)?;
            ensure!(ended, "{what}: a session goes on");
        }
        let took = begun.elapsed();
        ensure!(took < PROMPT, "{what}: after {took:?}");
        let warned = disabled.stderr.contains("could not tell its clients why");
        ensure!(warned, "{what}: {}", disabled.stderr);
        disabled.success()?;
        drop(stopped);
    }
    Ok(())
}

/// A session outlives its router, and its server stands still: nobody can end it, and that is said.
fn disable_without_a_router(stage: &Stage) -> anyhow::Result<()> {
    if stage.path() == DataPath::Relay {
        return Skip::on_this_path("the relay's sessions end with the router");
    }
    let installation = stage.installation()?;
    let tenant = installation.create_tenant("outliving")?;
    let mut first = installation.second_router("leaving-sessions")?;
    let mut wire = Wire::connect_tcp(first.address())?;
    wire.log_in(tenant.login())?;
    ensure!(wire.query_value("select 1")? == "1");
    process::eventually("the kernel has it", PROMPT, || {
        let sessions = first.sessions(tenant.id())?;
        Ok((sessions.len() == 1 && sessions[0]["path"] == "kernel").then_some(()))
    })?;
    crate::drain::kill(&mut first)?;
    let stopped = Stopped::postmaster(stage, tenant.id())?;
    let disabled = process::run(first.command().args(["disable", tenant.id()]), DOCKER_LIMIT)?;
    ensure!(disabled.status.code() == Some(11), "{disabled:?}");
    ensure!(disabled.stderr.contains("go on"), "{}", disabled.stderr);
    ensure!(wire.query_value("select 2")? == "2", "it was ended");
    drop(stopped);

    let second = first.successor("second.log", &["--path", stage.path().as_str()])?;
    ensure!(second.sessions(tenant.id())?.len() == 1);
    second.pgs(&["disable", tenant.id()])?;
    let (_, ended) = wire.receive_until_quiet(PROMPT)?;
    ensure!(ended, "it goes on");
    Ok(())
}

fn disable_can_leave_sessions_alone(stage: &Stage) -> anyhow::Result<()> {
    let router = stage.router()?;
    let tenant = stage.installation()?.create_tenant("lasting")?;
    let mut session = stage.connect()?;
    let key = session.log_in(tenant.login())?.key()?;
    router.pgs(&["disable", tenant.id(), "--keep-sessions"])?;
    let mut new = stage.connect()?;
    new.send(&startup_packet(PROTOCOL_3_0, &[("user", tenant.id())]))?;
    let refused = new.message()?.sqlstate();
    ensure!(refused.as_deref() == Some("28000"), "{refused:?}");
    ensure!(session.query_value("select 1")? == "1", "it was ended");
    session.send_query("select pg_sleep(60)")?;
    std::thread::sleep(Duration::from_millis(200));
    let mut cancel = stage.connect()?;
    cancel.send(&key.cancel_request())?;
    ensure!(cancel.receive_to_end()?.is_empty(), "an answer to a cancel");
    let answered = session.until_ready()?;
    let states: Vec<_> = answered.iter().filter_map(Message::sqlstate).collect();
    ensure!(states == ["57014"], "not cancelled: {states:?}");
    ensure!(session.query_value("select 1")? == "1", "it was ended");
    // Without it, it ends them later as well.
    router.pgs(&["disable", tenant.id()])?;
    let last = session.message()?.sqlstate();
    ensure!(last.as_deref() == Some("57P01"), "{last:?}");
    Ok(())
}
