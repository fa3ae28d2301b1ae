//! What the kernel, the limits and the directories of this machine are like.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;

use crate::command::doctor::Check;
use crate::config::directories::Directories;
use crate::config::directories::SERVER_SOCKET_NAME;
use crate::config::limits::ARRIVALS_MAX_DEFAULT;
use crate::config::limits::SESSIONS_MAX_DEFAULT;
use crate::config::limits::SOCKET_PATH_BYTES_MAX;
use crate::config::limits::TENANT_ID_BYTES_MAX;
use crate::datapath::PathRequest;
use crate::error::RUN_AS_ROOT;
use crate::server::Budget;

pub(super) fn checks(directories: &Directories) -> Vec<Check> {
    let mut checks = vec![kernel(), types(), open_files()];
    checks.push(directory(
        "state directory",
        directories.state(),
        directories.run(),
    ));
    checks.push(directory(
        "run directory",
        directories.run(),
        directories.run(),
    ));
    checks.push(socket_paths(directories));
    checks
}

fn kernel() -> Check {
    const NAME: &str = "kernel";
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => Check::good(NAME, format!("Linux {}", release.trim())),
        Err(error) => Check::fault(NAME, error.to_string(), "mount /proc"),
    }
}

fn types() -> Check {
    const NAME: &str = "kernel types (BTF)";
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    if Path::new(PATH).exists() {
        return Check::good(NAME, PATH);
    }
    let hint = "sessions are relayed; a kernel with CONFIG_DEBUG_INFO_BTF can redirect them";
    Check::warning(NAME, format!("there is no {PATH}"), hint)
}

fn open_files() -> Check {
    const NAME: &str = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) => {
            let limit = usize::try_from(hard).unwrap_or(usize::MAX);
            let (most, arrivals) = (usize::MAX, ARRIVALS_MAX_DEFAULT);
            let budget = Budget::within(limit, most, arrivals, PathRequest::Auto);
            let Budget {
                sessions, arrivals, ..
            } = budget;
            let detail = format!(
                "at most {hard}: room for {sessions} sessions, and {arrivals} connections that \
                 have not said yet what they want"
            );
            if sessions >= SESSIONS_MAX_DEFAULT {
                return Check::good(NAME, detail);
            }
            let hint = format!("raise the hard limit, or begin with `--sessions-max {sessions}`");
            Check::warning(NAME, detail, hint)
        }
        Err(error) => Check::warning(NAME, error.to_string(), "see `ulimit -Hn`"),
    }
}

fn directory(name: &'static str, path: &Path, run: &Path) -> Check {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Check::fault(
            name,
            format!("`{shown}` is no directory"),
            "name another one",
        ),
        Ok(metadata) if metadata.mode() & 0o002 != 0 => {
            let hint = format!("`chmod o-w {shown}`");
            Check::fault(name, format!("everybody may write to `{shown}`"), hint)
        }
        Ok(metadata) if metadata.uid() != nix::unistd::geteuid().as_raw() => {
            let owner = metadata.uid();
            // To root it is open; a router that runs as its own user has its own.
            if path == run && nix::unistd::geteuid().is_root() {
                return Check::good(name, format!("{shown}, user {owner}'s"));
            }
            Check::fault(name, format!("`{shown}` is user {owner}'s"), RUN_AS_ROOT)
        }
        Ok(_) => Check::good(name, shown.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::good(name, format!("{shown} (made when it is needed)"))
        }
        Err(error) => Check::fault(name, format!("`{shown}`: {error}"), RUN_AS_ROOT),
    }
}

/// Room for the longest id there can be.
fn socket_paths(directories: &Directories) -> Check {
    const NAME: &str = "socket paths";
    let parent = directories.sockets().as_os_str().len() + 1;
    let room = SOCKET_PATH_BYTES_MAX.saturating_sub(parent + 1 + SERVER_SOCKET_NAME.len());
    let detail = format!(
        "room for tenant ids of {} characters",
        room.min(TENANT_ID_BYTES_MAX)
    );
    match room {
        0 => Check::fault(
            NAME,
            "no tenant's socket can have a path",
            "a shorter `--state-dir`",
        ),
        _ if room < TENANT_ID_BYTES_MAX => Check::warning(
            NAME,
            detail,
            "a shorter `--state-dir` makes room for longer ids",
        ),
        _ => Check::good(NAME, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Verdict;

    #[test]
    fn room_for_sockets_is_counted() {
        let verdict = |state: String| socket_paths(&Directories::new(state, "/r")).verdict;
        assert_eq!(verdict("/var/lib/pgs".to_owned()), Verdict::Good);
        assert_eq!(verdict("/".to_owned() + &"x".repeat(40)), Verdict::Warning);
        assert_eq!(verdict("/".to_owned() + &"x".repeat(100)), Verdict::Fault);
    }
}
