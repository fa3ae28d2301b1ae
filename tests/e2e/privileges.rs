//! What the router may do on the machine, who may ask it things, and what a service manager hears.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use nix::unistd::User;
use pgs_tests::installation::Installation;
use pgs_tests::login::PROTOCOL_3_0;
use pgs_tests::login::startup_packet;
use pgs_tests::process;
use pgs_tests::router::DataPath;
use pgs_tests::router::Router;
use pgs_tests::router::pgs_binary;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Tenant;
use pgs_tests::trust;
use pgs_tests::trust::Issued;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("a_user_of_its_own_is_enough", a_user_of_its_own),
    ("a_named_user_is_in_no_group_but_its_own", named_user),
    ("a_user_that_cannot_get_there_is_told", cannot_get_there),
    (
        "a_user_that_cannot_pass_tls_through_is_told_of",
        cannot_pass_tls_through,
    ),
    ("as_root_it_keeps_little", as_root),
    ("foreign_users_get_no_answer_from_the_router", foreign_users),
    ("a_service_manager_hears_of_it", service_manager),
];

/// Nobody's, and somebody else's: numbers, so that the machine needs no entry for them.
const SERVICE: u32 = 64_242;
const OTHER: u32 = 64_243;

/// Somebody whom every machine's database has.
const NAMED: &str = "nobody";

/// What the log says of groups that could not be left.
const IN_GROUPS: &str = "this user is in groups beside its own";

const LIMIT: Duration = Duration::from_secs(30);

/// An installation below directories that other users can pass through.
fn open_installation(stage: &Stage) -> anyhow::Result<Installation> {
    let installation = Installation::start(stage.path())?;
    fs::set_permissions(installation.scratch(""), Permissions::from_mode(0o711))?;
    Ok(installation)
}

fn start_as_service(installation: &Installation) -> anyhow::Result<Router> {
    let user = format!("{SERVICE}:{SERVICE}");
    installation.second_router_with("service", &["--user", &user])
}

fn status_line(process: u32, name: &str) -> anyhow::Result<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("no {name} in {status}"))?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn a_user_of_its_own(stage: &Stage) -> anyhow::Result<()> {
    let installation = open_installation(stage)?;
    let early = installation.create_tenant("early")?;
    let issued = trust::issue(&installation.scratch("issued"), &["localhost"])?;
    install(installation.router(), "--default", &issued)?;
    let router = start_as_service(&installation)?;
    let status = router.status()?;
    ensure!(status["path"] == stage.path().as_str(), "{status}");
    holds_nothing(&router)?;

    // All of it works: sessions on their path, TLS, cancels, and what root's commands change.
    let late = installation.create_tenant("late")?;
    for tenant in [&early, &late] {
        serves(stage, &router, tenant)?;
    }
    let mut secured = Wire::connect_tcp(router.address())?
        .secure(trust::client(Some("localhost"), Some(trust::ALPN))?)?;
    secured.log_in(late.login())?;
    // A certificate that root installs while it runs.
    let renewed = trust::issue(&installation.scratch("renewed"), &["renewed.test"])?;
    install(&router, "renewed.test", &renewed)?;
    process::eventually("the new certificate is shown", LIMIT, || {
        let wire = Wire::connect_tcp(router.address())?;
        let wire = wire.secure(trust::client(Some("renewed.test"), Some(trust::ALPN))?)?;
        let shown = wire.tls()?.peer_certificates().unwrap_or_default();
        Ok((shown.first() == Some(&renewed.der)).then_some(()))
    })?;
    router.pgs(&["disable", late.id()])?;
    let refused = Wire::connect_tcp(router.address())?.log_in(late.login());
    ensure!(refused.is_err(), "lets in after `pgs disable`");
    let doctor = process::run(router.command().args(["doctor"]), LIMIT)?;
    ensure!(doctor.status.success(), "it finds a fault: {doctor:?}");
    let mut lines = doctor.stdout.lines();
    let line = lines.find(|line| line.starts_with("router's privileges"));
    let expected = format!("user {SERVICE}, no capabilities");
    let said = line.is_some_and(|line| line.contains(&expected));
    ensure!(said, "{doctor:?}");
    Ok(())
}

fn install(router: &Router, whose: &str, issued: &Issued) -> anyhow::Result<()> {
    let certificate = issued.certificate.to_string_lossy();
    let key = issued.key.to_string_lossy();
    let files = ["--certificate", &certificate, "--key", &key];
    router.pgs(&[&["tls", "set", whose], &files[..]].concat())?;
    Ok(())
}

/// By its own account and by the kernel's, in every thread.
fn holds_nothing(router: &Router) -> anyhow::Result<()> {
    let status = router.status()?;
    let held = &status["privileges"];
    ensure!(held["uid"] == SERVICE, "{held}");
    let none = held["capabilities"].as_array().is_some_and(Vec::is_empty);
    ensure!(none, "{held}");
    let process = router.process_id();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = task?.file_name().to_string_lossy().parse()?;
        ensure!(status_line(thread, "Uid:")? == format!("{SERVICE} {SERVICE} {SERVICE} {SERVICE}"));
        ensure!(status_line(thread, "Groups:")? == SERVICE.to_string());
        ensure!(status_line(thread, "NoNewPrivs:")? == "1");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let held = status_line(thread, set)?;
            ensure!(held == "0".repeat(16), "{set} {held} of {thread}");
        }
    }
    // Nobody but root looks into its memory.
    ensure!(fs::metadata(format!("/proc/{process}/mem"))?.uid() == 0);
    Ok(())
}

/// A session on the path that was asked for, and a cancelled query.
fn serves(stage: &Stage, router: &Router, tenant: &Tenant<'_>) -> anyhow::Result<()> {
    let mut wire = Wire::connect_tcp(router.address())?;
    let key = wire.log_in_with(3 << 16, tenant.login())?.key()?;
    ensure!(wire.query_value("select count(*) from generate_series(1, 1000)")? == "1000");
    let sessions = router.sessions(tenant.id())?;
    ensure!(sessions[0]["path"] == stage.path().as_str(), "{sessions:?}");
    if stage.path() == DataPath::Kernel {
        let bytes = sessions[0]["bytes_in_kernel"].as_u64();
        ensure!(bytes > Some(0), "{sessions:?}");
    }
    wire.send_query("select pg_sleep(30)")?;
    std::thread::sleep(Duration::from_millis(200));
    let mut cancel = Wire::connect_tcp(router.address())?;
    cancel.send(&key.cancel_request())?;
    let answer = wire.until_ready()?;
    let states: Vec<_> = answer.iter().filter_map(Message::sqlstate).collect();
    ensure!(states == ["57014"], "{states:?}");
    Ok(())
}

/// By `--user`, which leaves them, and started so by a service manager, which does not.
fn named_user(stage: &Stage) -> anyhow::Result<()> {
    let nobody = User::from_name(NAMED)?.context("no such user")?;
    let installation = open_installation(stage)?;
    let database = installation.scratch("group");
    let groups = fs::read_to_string("/etc/group")?;
    fs::write(&database, format!("{groups}pgs-second:x:{OTHER}:{NAMED}\n"))?;
    // In a mount namespace of its own: the machine's database stays as it is.
    let database = database.to_string_lossy();
    let within = r#"mount --bind "$0" /etc/group && exec "$@""#;
    let within = ["unshare", "--mount", "sh", "-c", within, &database];
    let router = installation.router_through("named", &within, &["--user", NAMED])?;
    let process = router.process_id();
    let user = status_line(process, "Uid:")?;
    ensure!(user.starts_with(&format!("{} ", nobody.uid)), "{user}");
    let groups = status_line(process, "Groups:")?;
    ensure!(groups == nobody.gid.to_string(), "in groups {groups}");
    let tenant = installation.create_tenant("one")?;
    serves(stage, &router, &tenant)?;
    ensure!(!router.log().contains(IN_GROUPS), "{}", router.log());
    drop(router);

    let groups = format!("--groups={},{OTHER}", nobody.gid);
    let identity = [
        format!("--reuid={}", nobody.uid),
        format!("--regid={}", nobody.gid),
        groups,
    ];
    let binary = reachable_binary(&installation)?;
    let needed = "+bpf,+net_admin,+perfmon";
    let command = format!(
        "shift && exec setpriv {} --inh-caps={needed} --ambient-caps={needed} $0 \"$@\"",
        identity.join(" ")
    );
    let within = ["sh", "-c", &command, &binary.to_string_lossy()];
    let router = installation.router_through("named", &within, &[])?;
    serves(stage, &router, &tenant)?;
    let held = &router.status()?["privileges"];
    ensure!(held["groups"] == serde_json::json!([OTHER]), "{held}");
    ensure!(router.log().contains(IN_GROUPS), "{}", router.log());
    Ok(())
}

fn cannot_get_there(stage: &Stage) -> anyhow::Result<()> {
    let installation = Installation::start(stage.path())?;
    fs::set_permissions(installation.scratch(""), Permissions::from_mode(0o700))?;
    let started = start_as_service(&installation);
    let said = format!("{:#}", started.err().context("it serves")?);
    ensure!(
        said.contains("cannot reach") && said.contains("chmod o+x"),
        "{said}"
    );
    Ok(())
}

fn cannot_pass_tls_through(stage: &Stage) -> anyhow::Result<()> {
    const TENANT: &str = "sealed";
    const LACKS: &str = "lacks CAP_SYS_ADMIN and CAP_SYS_PTRACE";
    let installation = open_installation(stage)?;
    let _tenant = installation.create_tenant(TENANT)?;
    let host = format!("{TENANT}.db.test");
    let issued = trust::issue(&installation.scratch("issued"), &[&host])?;
    install(installation.router(), "--default", &issued)?;
    let user = format!("{SERVICE}:{SERVICE}");
    let arguments = ["--user", &user, "--tls-domain", "db.test"];
    let router = installation.second_router_with("service", &arguments)?;
    let certificate = issued.certificate.to_string_lossy();
    let key = issued.key.to_string_lossy();
    let files = ["--certificate", &certificate, "--key", &key];
    router.pgs(&[&["tls", "set", "--tenant", TENANT], &files[..]].concat())?;
    let set = |router: &Router| {
        let mut command = router.command();
        process::run(command.args(["set", TENANT, "tls=passthrough"]), LIMIT)
    };
    let told = set(&router)?;
    ensure!(told.status.success(), "{told:?}");
    ensure!(told.stderr.contains(LACKS), "{told:?}");
    let doctor = process::run(router.command().args(["doctor"]), LIMIT)?;
    ensure!(
        !doctor.status.success() && doctor.stdout.contains(LACKS),
        "{doctor:?}"
    );
    // Root's router can, and nothing is said.
    let told = set(installation.router())?;
    ensure!(!told.stderr.contains("lacks"), "{told:?}");
    router.pgs(&["restart", TENANT])?;
    let mut wire = Wire::connect_tcp(router.address())?
        .secure(trust::client(Some(&host), Some(trust::ALPN))?)?;
    wire.send(&startup_packet(PROTOCOL_3_0, &[("user", TENANT)]))?;
    let refused = wire.message()?;
    ensure!(
        refused.sqlstate().as_deref() == Some("57P03"),
        "{refused:?}"
    );
    let hint = refused.field(b'H').unwrap_or_default();
    ensure!(
        hint.contains("`pgs doctor`") && !hint.contains("restart"),
        "{hint}"
    );
    Ok(())
}

fn as_root(stage: &Stage) -> anyhow::Result<()> {
    let process = stage.router()?.process_id();
    // CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_SYS_PTRACE and CAP_SYS_ADMIN (linux/capability.h).
    let most = 1_u64 << 1 | 1 << 12 | 1 << 19 | 1 << 21;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = task?.file_name().to_string_lossy().parse()?;
        let permitted = u64::from_str_radix(&status_line(thread, "CapPrm:")?, 16)?;
        ensure!(permitted & !most == 0, "thread {thread}: {permitted:x}");
        ensure!(status_line(thread, "NoNewPrivs:")? == "1");
    }
    Ok(())
}

/// A copy of the binary: another user may not reach the original.
fn reachable_binary(installation: &Installation) -> anyhow::Result<PathBuf> {
    let binary = installation.scratch("pgs");
    if !binary.exists() {
        fs::copy(pgs_binary(), &binary)?;
        fs::set_permissions(&binary, Permissions::from_mode(0o755))?;
    }
    Ok(binary)
}

/// A `pgs` command as another user.
fn asked_by(installation: &Installation, router: &Router, user: u32) -> anyhow::Result<String> {
    let mut command = Command::new(reachable_binary(installation)?);
    for (name, value) in router.command().get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.args(["sessions", "--json"]).uid(user).gid(user);
    let finished = process::run(&mut command, LIMIT)?;
    Ok(format!("{}{}", finished.stdout, finished.stderr))
}

fn foreign_users(stage: &Stage) -> anyhow::Result<()> {
    let installation = open_installation(stage)?;
    let router = start_as_service(&installation)?;
    let run = installation.scratch("service");
    let socket = run.join("admin.sock");
    ensure!(fs::metadata(&socket)?.mode() & 0o777 == 0o600);
    ensure!(fs::metadata(&run)?.mode() & 0o777 == 0o750);
    let said = asked_by(&installation, &router, OTHER)?;
    ensure!(said.contains("permission_denied"), "by the modes: {said}");
    // Even where the modes let it through.
    fs::set_permissions(&run, Permissions::from_mode(0o755))?;
    fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
    let said = asked_by(&installation, &router, OTHER)?;
    let expected = format!("user {OTHER} is neither root nor the router's own");
    ensure!(said.contains(&expected), "by the credentials: {said}");
    ensure!(
        router
            .log()
            .contains("admin request of a foreign user refused")
    );
    let said = asked_by(&installation, &router, SERVICE)?;
    ensure!(said.contains("\"sessions\""), "its own user: {said}");
    ensure!(router.status().is_ok(), "root");
    Ok(())
}

fn service_manager(stage: &Stage) -> anyhow::Result<()> {
    let installation = stage.installation()?;
    let socket = installation.scratch("notify.sock");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(LIMIT))?;
    let mut child = Command::new(pgs_binary())
        .env("NOTIFY_SOCKET", &socket)
        .env("PGS_STATE_DIR", installation.state_directory())
        .env("PGS_RUN_DIR", installation.scratch("managed"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--path",
            stage.path().as_str(),
        ])
        .stderr(Stdio::null())
        .spawn()?;
    let heard = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message)?;
        anyhow::Ok(String::from_utf8(message[..length].to_vec())?)
    };
    let ready = heard();
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    let stopping = heard();
    let ended = process::wait(&mut child, LIMIT)?;
    let expected = format!("READY=1\nSTATUS=path {}\n", stage.path());
    let ready = ready?;
    ensure!(ready == expected, "{ready:?}");
    let stopping = stopping?;
    ensure!(stopping.starts_with("STOPPING=1\n"), "{stopping:?}");
    ensure!(ended.is_some_and(|status| status.success()), "{ended:?}");
    Ok(())
}
