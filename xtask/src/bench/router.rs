//! What stands between client and server, as child processes of the run.

use super::ground::{Ground, TENANT};
use super::server::{Servers, free_port};
use super::subject::Subject;
use crate::process;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL_PERIOD: Duration = Duration::from_millis(20);
/// Whom PgBouncer, which refuses to be root, may run as: the first that exists.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// A running router. Ended when it is dropped, or by the kernel should this process die.
pub(super) struct Router {
    child: Child,
    name: String,
    pub(super) port: u16,
}

impl Router {
    /// Starts one and waits until it listens, on 127.0.0.1 and on `address`. `instance` keeps
    /// several of a kind apart.
    pub(super) fn start(
        subject: Subject,
        instance: &str,
        ground: &Ground,
        servers: &Servers,
        address: &str,
    ) -> Result<Self> {
        let port = free_port()?;
        let name = format!("{}-{instance}", subject.name());
        let listen = [address, "127.0.0.1"];
        let command = match subject {
            Subject::Haproxy => haproxy(&ground.path(&name), servers, listen, port)?,
            Subject::Pgbouncer => pgbouncer(&ground.path(&name), servers, listen, port)?,
            Subject::PgsRelay | Subject::PgsKernel | Subject::PgsAuto => {
                pgs(subject, &name, ground, listen, port)
            }
            Subject::Published | Subject::UnixSocket => bail!("{name} is no process of its own"),
        };
        let log_path = ground.path(&format!("{name}.log"));
        let log = File::create(&log_path)?;
        let mut command = dying_with_us(&command);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in a terminal goes to this process alone, which ends its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let mut router = Self { child, name, port };
        router.wait_until_listening().with_context(|| {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n    ");
            format!("{} does not serve; it said: {tail}", router.name)
        })?;
        Ok(router)
    }

    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status})");
            }
            if Instant::now() >= deadline {
                bail!("it does not listen after {START_LIMIT:?}");
            }
            thread::sleep(POLL_PERIOD);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        // Not reaped yet, so the pid is still its own.
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(pid, Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("it did not end within {STOP_LIMIT:?} of SIGTERM and was killed");
            }
            thread::sleep(POLL_PERIOD);
        }
        Ok(())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            crate::report::line(format_args!("  ✗ end {}: {error:#}", self.name));
        }
    }
}

/// The same command, which the kernel ends if this process dies without ending it.
fn dying_with_us(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--pdeathsig", "TERM", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
}

fn pgs(subject: Subject, name: &str, ground: &Ground, listen: [&str; 2], port: u16) -> Command {
    let mut command = ground.pgs(name);
    command.args(["serve", "--drain-seconds", "1"]);
    command.args(["--path", subject.path().unwrap_or_default()]);
    for host in listen {
        command.args(["--listen", &format!("{host}:{port}")]);
    }
    command
}

/// What an administrator would write who wants a TCP proxy and no more. Time-outs are needed for
/// HAProxy not to complain, and are long so that none ends an idle session.
fn haproxy(directory: &Path, servers: &Servers, listen: [&str; 2], port: u16) -> Result<Command> {
    let binds: String = listen
        .iter()
        .map(|host| format!("    bind {host}:{port}\n"))
        .collect();
    let configuration = format!(
        "global\n    maxconn 2000\ndefaults\n    mode tcp\n    maxconn 2000\n\
         \x20   timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n\
         listen postgresql\n{binds}    server container {}:5432\n",
        servers.container_address
    );
    fs::create_dir(directory)?;
    let file = directory.join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let mut command = Command::new(found("haproxy")?);
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn pgbouncer(directory: &Path, servers: &Servers, listen: [&str; 2], port: u16) -> Result<Command> {
    let users = UNPRIVILEGED
        .iter()
        .find_map(|name| User::from_name(name).transpose());
    let user = users.context("there is neither a user `postgres` nor `nobody`")??;
    let secrets = directory.join("users.txt");
    let configuration = format!(
        "[databases]\n{TENANT} = host={} port=5432 dbname={TENANT}\n\
         [pgbouncer]\nlisten_addr = {}\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = {}\npool_mode = session\n\
         default_pool_size = 250\nmax_client_conn = 2000\n\
         ignore_startup_parameters = extra_float_digits\n",
        servers.container_address,
        listen.join(","),
        secrets.display()
    );
    fs::create_dir(directory)?;
    let file = directory.join("pgbouncer.ini");
    fs::write(&file, configuration)?;
    fs::write(&secrets, format!("\"{TENANT}\" \"{}\"\n", servers.verifier))?;
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600))?;
    for path in [directory, &file, &secrets] {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    let mut command = Command::new(found("pgbouncer")?);
    command.args(["--user", &user.name]).arg(file);
    Ok(command)
}

fn found(program: &str) -> Result<std::path::PathBuf> {
    process::find(program).with_context(|| format!("there is no `{program}`"))
}
