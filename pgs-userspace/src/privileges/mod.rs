//! What the router may do on this machine, and giving up what it no longer needs.
//!
//! Capabilities are each thread's own, and a thread inherits those of the one that starts it. So
//! the order is: [`confine`] while there is one thread; start what needs them; then every thread
//! calls [`relinquish`] for itself: the first one once everything is loaded and listened on, all
//! others as the first thing they do.

mod handover;
mod user;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;

use caps::CapSet;
use caps::Capability;
use caps::CapsHashSet;
use caps::errors::CapsError;
use nix::sys::prctl;
use nix::unistd::getegid;
use nix::unistd::geteuid;

use crate::config::directories::Directories;
pub use handover::HandoverError;
pub use user::ServiceUser;
pub use user::UnknownUser;

/// What starting needs, and for what. Found by running it with one taken away at a time.
pub const NEEDED_TO_START: [(Capability, &str); 4] = [
    (Capability::CAP_BPF, "to load the eBPF program"),
    (Capability::CAP_NET_ADMIN, "to make the maps of its sockets"),
    (
        Capability::CAP_PERFMON,
        "to let it read how full a socket is",
    ),
    (
        Capability::CAP_NET_BIND_SERVICE,
        "to listen on a port below 1024",
    ),
];

/// What the kernel path does not come without.
pub const NEEDED_BY_KERNEL_PATH: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// What passing TLS through does not go without: entering the network namespaces of tenants, whose
/// servers are another user's.
pub const NEEDED_TO_PASS_TLS_THROUGH: [Capability; 2] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];

/// What a router that runs as root keeps while it serves; any other user's keeps none.
const KEPT_AS_ROOT: [Capability; 4] = [
    // Certificates and sockets may be another user's.
    Capability::CAP_DAC_OVERRIDE,
    // Socket buffers above the system's maximum.
    Capability::CAP_NET_ADMIN,
    // Entering a tenant's network namespace, for TLS that its own server ends.
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
];

/// What to do where a router is in groups that it has no use for.
pub const FOREIGN_GROUPS_HINT: &str = "the router may do what these groups may, with Docker's all \
     that root may: take its user out of those that it does not need (`gpasswd --delete`), and \
     restart `pgs serve`";

/// Why the router's privileges cannot be what they should be.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Only root can become somebody else.
    #[error("cannot run as user `{user}`: only root can become another user")]
    NotRoot {
        /// Who was asked for.
        user: String,
    },
    /// A directory cannot be handed over to the user.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The user cannot get to what was handed over to it.
    #[error("user `{user}` cannot reach `{path}`: {error}")]
    Unreachable {
        /// Who.
        user: String,
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A system call failed.
    #[error("{call}: {error}")]
    System {
        /// Which.
        call: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Capabilities cannot be read or changed.
    #[error("capabilities: {0}")]
    Capabilities(#[from] CapsError),
}

fn system(call: &'static str) -> impl FnOnce(nix::Error) -> PrivilegeError {
    move |errno| PrivilegeError::System {
        call,
        error: errno.into(),
    }
}

/// Before there is a second thread: becomes `user`, if one is named, and from then on no program
/// that this process starts can have more than it has itself, and nobody can look into its memory.
///
/// # Errors
/// Not root, or a directory or a system call refuses.
pub fn confine(
    user: Option<&ServiceUser>,
    directories: &Directories,
) -> Result<(), PrivilegeError> {
    if let Some(user) = user.filter(|user| user.uid != geteuid()) {
        if !geteuid().is_root() {
            let user = user.name.clone();
            return Err(PrivilegeError::NotRoot { user });
        }
        handover::prepare(directories, user)?;
        drop_bounding_set()?;
        become_user(user)?;
        for path in [directories.registry(), directories.run().to_owned()] {
            // Not the file itself: a directory above it may let nobody through.
            std::fs::metadata(&path).map_err(|error| PrivilegeError::Unreachable {
                user: user.name.clone(),
                path,
                error,
            })?;
        }
    } else if geteuid().is_root() {
        drop_bounding_set()?;
    }
    prctl::set_no_new_privs().map_err(system("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    // Last: the kernel puts it back whenever an identity changes.
    prctl::set_dumpable(false).map_err(system("prctl(PR_SET_DUMPABLE)"))
}

/// The bounding set counts when a program is executed: the keeper gets nothing by being root.
fn drop_bounding_set() -> Result<(), PrivilegeError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        // A service manager that has taken this one away has bounded the others too.
        return Ok(());
    }
    Ok(caps::clear(None, CapSet::Bounding)?)
}

fn become_user(user: &ServiceUser) -> Result<(), PrivilegeError> {
    prctl::set_keepcaps(true).map_err(system("prctl(PR_SET_KEEPCAPS)"))?;
    user.assume()?;
    // What the machine, a container around it for example, does not allow stays away.
    let allowed = caps::read(None, CapSet::Permitted)?;
    let needed = NEEDED_TO_START.map(|(capability, _)| capability);
    let kept = needed.into_iter().filter(|one| allowed.contains(one));
    limit_to(&kept.collect())?;
    prctl::set_keepcaps(false).map_err(system("prctl(PR_SET_KEEPCAPS)"))
}

/// Gives up what is no longer needed, for the calling thread, for ever. Changes to the maps of the
/// kernel path need no capability once they are open.
///
/// # Errors
/// The kernel refuses, which it does not do for giving up.
pub fn relinquish() -> Result<(), PrivilegeError> {
    let mut kept = CapsHashSet::new();
    if geteuid().is_root() {
        let allowed = caps::read(None, CapSet::Permitted)?;
        kept.extend(KEPT_AS_ROOT.into_iter().filter(|one| allowed.contains(one)));
    }
    limit_to(&kept)
}

/// [`relinquish`] for a thread that has nobody to tell. What is left shows in `pgs status` too.
pub fn relinquish_or_log() {
    if let Err(error) = relinquish() {
        tracing::error!(%error, "a thread keeps its capabilities");
    }
}

/// A service manager starts a user with all its groups, and to leave one takes CAP_SETGID, which
/// the unit does not have. That it cannot be told adds nothing: `pgs status` reads the same.
pub fn warn_of_foreign_groups() {
    let held = Held::by_this_process().ok();
    if let Some(held) = held.filter(Held::has_foreign_groups) {
        let (groups, hint) = (held.groups, FOREIGN_GROUPS_HINT);
        tracing::warn!(?groups, hint, "this user is in groups beside its own");
    }
}

/// In the order that the kernel demands: what is effective must be permitted.
fn limit_to(kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(
        None,
        CapSet::Effective,
        &(kept & &caps::read(None, CapSet::Permitted)?),
    )?;
    caps::set(None, CapSet::Permitted, kept)?;
    Ok(())
}

/// What a process holds, all its threads together.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Held {
    /// Effective user id.
    pub uid: u32,
    /// Names of the capabilities that any thread could use.
    pub capabilities: Vec<String>,
    /// Groups that any thread is in besides the process's own, as a service manager leaves them to
    /// a user that has them.
    #[serde(default)]
    pub groups: Vec<u32>,
    /// Whether no program that it starts can have more.
    pub no_new_privileges: bool,
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            uid,
            capabilities,
            groups,
            ..
        } = self;
        let held = match capabilities.len() {
            0 => "no capabilities".to_owned(),
            1..=CAPABILITIES_SHOWN_MAX => capabilities.join(", "),
            more => format!("{more} capabilities"),
        };
        write!(formatter, "user {uid}, {held}")?;
        if !self.has_foreign_groups() {
            return Ok(());
        }
        let shown = groups.iter().take(GROUPS_SHOWN_MAX);
        let shown: Vec<_> = shown.map(ToString::to_string).collect();
        write!(formatter, ", also in groups {}", shown.join(", "))?;
        match groups.len().saturating_sub(GROUPS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

/// More than so many are root's, and a list of them says nothing.
const CAPABILITIES_SHOWN_MAX: usize = 6;

/// One is enough to look into it.
const GROUPS_SHOWN_MAX: usize = 6;

impl Held {
    /// Which of these it does not hold.
    pub fn missing(&self, needed: &[Capability]) -> Vec<String> {
        let names = needed.iter().map(ToString::to_string);
        names
            .filter(|name| !self.capabilities.contains(name))
            .collect()
    }

    /// Of the calling process.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn by_this_process() -> io::Result<Self> {
        let own = getegid().as_raw();
        let mut permitted = 0;
        let mut groups = BTreeSet::new();
        let mut no_new_privileges = true;
        for thread in std::fs::read_dir("/proc/self/task")? {
            let status = match std::fs::read_to_string(thread?.path().join("status")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                status => status?,
            };
            let thread = ThreadStatus::parse(&status)
                .ok_or_else(|| io::Error::other("`status` lacks CapPrm, Groups or NoNewPrivs"))?;
            permitted |= thread.permitted;
            groups.extend(thread.groups.into_iter().filter(|group| *group != own));
            no_new_privileges &= thread.no_new_privileges;
        }
        Ok(Self {
            uid: geteuid().as_raw(),
            capabilities: names(permitted),
            groups: groups.into_iter().collect(),
            no_new_privileges,
        })
    }

    /// Whether it is in groups that it has no use for. Root's say nothing: it needs none.
    pub fn has_foreign_groups(&self) -> bool {
        self.uid != 0 && !self.groups.is_empty()
    }
}

/// What a `/proc/<pid>/status` says of this (proc_pid_status(5)).
#[derive(Debug, PartialEq, Eq)]
struct ThreadStatus {
    permitted: u64,
    groups: Vec<u32>,
    no_new_privileges: bool,
}

impl ThreadStatus {
    fn parse(status: &str) -> Option<Self> {
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let groups = field("Groups:")?.split_whitespace();
        Some(Self {
            permitted: u64::from_str_radix(field("CapPrm:")?.trim(), 16).ok()?,
            groups: groups
                .map(|group| group.parse().ok())
                .collect::<Option<_>>()?,
            no_new_privileges: field("NoNewPrivs:")?.trim() == "1",
        })
    }
}

fn names(bits: u64) -> Vec<String> {
    let mut held: Vec<_> = caps::all()
        .into_iter()
        .filter(|one| bits & one.bitmask() != 0)
        .collect();
    held.sort_by_key(Capability::index);
    held.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_a_thread() {
        let status = "Name:\tpgs\nGroups:\t7 103 \nCapInh:\t0\nCapPrm:\t000000c000001400\n\
                      NoNewPrivs:\t1\n";
        let thread = ThreadStatus {
            permitted: 0xc0_0000_1400,
            groups: vec![7, 103],
            no_new_privileges: true,
        };
        assert_eq!(ThreadStatus::parse(status), Some(thread));
        let expected = [
            "CAP_NET_BIND_SERVICE",
            "CAP_NET_ADMIN",
            "CAP_PERFMON",
            "CAP_BPF",
        ];
        assert_eq!(names(0xc0_0000_1400), expected);
        for wrong in [
            status.replace("c000", "x"),
            status.replace("103", "x"),
            String::new(),
        ] {
            assert_eq!(ThreadStatus::parse(&wrong), None, "{wrong}");
        }
        let none = ThreadStatus::parse(&status.replace("7 103 ", "")).unwrap();
        assert_eq!(none.groups, [0_u32; 0]);
    }

    #[test]
    fn the_unit_grants_what_starting_needs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/pgs.service");
        let unit = std::fs::read_to_string(path).unwrap();
        let mut needed = NEEDED_TO_START.map(|(one, _)| one.to_string());
        needed.sort();
        for setting in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
            let lines = unit.lines().filter_map(|line| line.strip_prefix(setting));
            let mut granted: Vec<_> = lines.flat_map(str::split_whitespace).collect();
            granted.sort_unstable();
            assert_eq!(granted, needed, "{setting}");
        }
    }

    #[test]
    fn a_thread_gives_up_and_the_others_keep() {
        let others = caps::read(None, CapSet::Permitted).unwrap();
        let left = std::thread::spawn(|| {
            relinquish().unwrap();
            [
                CapSet::Permitted,
                CapSet::Effective,
                CapSet::Inheritable,
                CapSet::Ambient,
            ]
            .map(|set| caps::read(None, set).unwrap())
        });
        let left = left.join().unwrap();
        let kept: CapsHashSet = match geteuid().is_root() {
            true => KEPT_AS_ROOT
                .into_iter()
                .filter(|one| others.contains(one))
                .collect(),
            false => CapsHashSet::new(),
        };
        assert_eq!(
            left,
            [kept.clone(), kept, CapsHashSet::new(), CapsHashSet::new()]
        );
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), others);
    }
}
