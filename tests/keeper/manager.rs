//! systemd's descriptor store, with this process in systemd's place.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use nix::fcntl::FcntlArg;
use nix::fcntl::fcntl;
use nix::sys::signal::Signal;
use nix::sys::stat::fstat;
use pgs_tests::process::eventually;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::recvmsg;

use crate::Scenario;
use crate::ground::Ground;
use crate::ground::LIMIT;
use crate::ground::QUIET;
use crate::ground::inode;
use crate::stage::Stage;
use crate::stand_in::StandIn;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "a_restarted_unit_gets_its_descriptors",
        a_restarted_unit_gets_its_descriptors,
    ),
    (
        "listeners_that_change_places_stay_stored",
        listeners_that_change_places_stay_stored,
    ),
];

/// Above everything that a shell or a test has open.
const PASSED_FROM: i32 = 200;

/// Name and descriptor, as systemd keeps them.
type Stored = Vec<(String, OwnedFd)>;

/// What a unit has stored.
pub(crate) struct Manager {
    stored: Arc<Mutex<Stored>>,
}

impl Manager {
    /// Listens until this process ends.
    pub(crate) fn listen(ground: &Ground) -> anyhow::Result<Self> {
        let socket = UnixDatagram::bind(ground.run().join("notify"))?;
        let stored = Arc::new(Mutex::new(Stored::new()));
        let ours = Arc::clone(&stored);
        std::thread::spawn(move || {
            while let Ok((text, descriptors)) = receive(&socket) {
                obey(&text, descriptors, &mut lock(&ours));
            }
        });
        Ok(Self { stored })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = lock(&self.stored).iter().map(|one| one.0.clone()).collect();
        names.sort();
        names
    }

    /// Names and addresses of the listeners among it, by their names.
    fn listeners(&self) -> anyhow::Result<Vec<(String, SocketAddr)>> {
        let mut found = Vec::new();
        for (name, descriptor) in lock(&self.stored).iter() {
            if name.starts_with("pgs.global.listener.") {
                let listener = TcpListener::from(descriptor.try_clone()?);
                found.push((name.clone(), listener.local_addr()?));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The unit's command, with `LISTEN_FDS` and what is stored from descriptor 3 on. What is to be
    /// passed is open in this process, too, until `close` is called.
    pub(crate) fn command(&self, unit: &Command) -> anyhow::Result<(Command, Passed)> {
        let stored = lock(&self.stored);
        let mut passed = Passed(Vec::new());
        let mut script = String::from("export LISTEN_PID=$$; exec \"$0\" \"$@\"");
        for (wanted, (_, descriptor)) in (3..).zip(stored.iter()) {
            // Not closed on exec, other than every descriptor of Rust's own.
            let copy = fcntl(descriptor, FcntlArg::F_DUPFD(PASSED_FROM))?;
            script += &format!(" {wanted}<&{copy} {copy}<&-");
            passed.0.push(copy);
        }
        let names: Vec<_> = stored.iter().map(|one| one.0.as_str()).collect();
        // Plain sh cannot name a descriptor beyond 9.
        let mut command = Command::new("bash");
        command
            .args(["-c", &script])
            .arg(unit.get_program())
            .args(unit.get_args())
            .envs(
                unit.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("LISTEN_FDS", stored.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        Ok((command, passed))
    }
}

/// Descriptors that are open to be inherited.
pub(crate) struct Passed(Vec<i32>);

impl Drop for Passed {
    fn drop(&mut self) {
        for descriptor in &self.0 {
            // Ours alone; the next test does not need it.
            nix::unistd::close(*descriptor).ok();
        }
    }
}

fn lock(stored: &Mutex<Stored>) -> MutexGuard<'_, Stored> {
    stored.lock().unwrap_or_else(PoisonError::into_inner)
}

fn receive(socket: &UnixDatagram) -> anyhow::Result<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 512];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let text = String::from_utf8(bytes[..received.bytes].to_vec())?;
    Ok((text, descriptors))
}

/// As sd_notify(3) says, and as systemd's `service_add_fd_store` does: what it has already, under
/// whatever name, it does not store again.
fn obey(text: &str, descriptors: Vec<OwnedFd>, stored: &mut Stored) {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let name = value("FDNAME").unwrap_or("stored").to_owned();
    if value("FDSTOREREMOVE") == Some("1") {
        stored.retain(|one| one.0 != name);
    }
    // Without FDPOLL=0 it would drop a socket whose peer hangs up: then nothing counts here.
    if value("FDSTORE") == Some("1") && value("FDPOLL") == Some("0") {
        for one in descriptors {
            if !stored.iter().any(|(_, other)| is_same(other, &one)) {
                stored.push((name.clone(), one));
            }
        }
    }
}

/// That is so of sockets; all eBPF maps have one inode.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let file = |descriptor: &OwnedFd| fstat(descriptor).map(|file| (file.st_dev, file.st_ino));
    matches!((file(one), file(other)), (Ok(one), Ok(other)) if one == other)
}

fn a_restarted_unit_gets_its_descriptors() -> anyhow::Result<()> {
    let ground = Ground::new(Duration::from_secs(20))?;
    let manager = Manager::listen(&ground)?;
    let mut unit = StandIn::command(&ground, 1)?;
    unit.env("NOTIFY_SOCKET", ground.run().join("notify"));
    unit.env("FDSTORE", "100");
    let mut first = Command::new(unit.get_program());
    first.args(unit.get_args());
    first.envs(
        unit.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let (mut router, mut sessions) = StandIn::start_by(first, &ground, 1)?;
    let expected = ["+0", "<0", ">0", "pgs.global.listener.0"];
    eventually("everything is stored", LIMIT, || {
        Ok((manager.names() == expected).then_some(()))
    })?;
    ensure!(
        !ground.run().join("keeper.sock").exists(),
        "a keeper beside it"
    );
    router.kill_group(Signal::SIGKILL)?;

    let listener = lock(&manager.stored)
        .iter()
        .find(|one| one.0 == expected[3])
        .map(|one| inode(&one.1));
    let listener = listener.context("no listener")??;
    let (second, passed) = manager.command(&unit)?;
    let (router, _new_sessions) = StandIn::start_by(second, &ground, 1)?;
    drop(passed);
    let session = sessions.pop().context("no session")?;
    let [client, backend, aside] = session.inodes;
    let slot = format!("held-slot 0 {client} {backend} {aside}");
    ensure!(router.said.contains(&slot), "{slot}: {:?}", router.said);
    let held = format!("held listener.0 {listener}");
    ensure!(router.said.contains(&held), "{held}: {:?}", router.said);

    // It has put another session into the place of the first, which nobody holds any more.
    eventually("the second unit's session is stored", LIMIT, || {
        let stored = lock(&manager.stored);
        let client_now = stored.iter().find(|one| one.0 == expected[1]);
        let other = client_now.is_some_and(|one| inode(&one.1).is_ok_and(|now| now != client));
        Ok((other && stored.len() == expected.len()).then_some(()))
    })?;
    std::thread::sleep(QUIET);
    ensure!(manager.names() == expected);
    router.end()
}

fn listeners_that_change_places_stay_stored() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let manager = Manager::listen(&stage.ground)?;
    let first = stage.address;
    // Both at once, so that they are two.
    let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0"));
    let [second, third] = free.map(|one| one.and_then(|one| one.local_addr()));
    let (second, third) = (second?, third?);
    let orders = [
        vec![first, second, third],
        vec![first, third, second],
        vec![first, second],
    ];
    for (number, order) in orders.into_iter().enumerate() {
        let more: Vec<_> = order[1..].iter().map(SocketAddr::to_string).collect();
        let more = more
            .iter()
            .flat_map(|address| ["--listen", address.as_str()]);
        let mut unit = stage.serve_command(&more.collect::<Vec<_>>());
        unit.env("NOTIFY_SOCKET", stage.ground.run().join("notify"));
        unit.env("FDSTORE", "100");
        let (mut unit, passed) = manager.command(&unit)?;
        let mut router = stage.serve_by(&mut unit, &format!("{number}.log"))?;
        drop(passed);
        let named = |(index, address): (usize, SocketAddr)| {
            (format!("pgs.global.listener.{index}"), address)
        };
        let expected: Vec<_> = order.into_iter().enumerate().map(named).collect();
        let stored = eventually("all listeners are stored", LIMIT, || {
            Ok(Some(manager.listeners()?).filter(|stored| *stored == expected))
        });
        stored.with_context(|| format!("{:?} instead of {expected:?}", manager.names()))?;
        router.signal(Signal::SIGTERM)?;
        router.until_ended()?;
    }
    Ok(())
}
