//! What this command may do on the machine, and what the running router may.

use caps::Capability;

use super::Check;
use crate::command::server_tls;
use crate::error::RUN_AS_ROOT;
use crate::privileges::FOREIGN_GROUPS_HINT;
use crate::privileges::Held;
use crate::privileges::NEEDED_BY_KERNEL_PATH;
use crate::privileges::NEEDED_TO_START;

/// Whether a router that is started as this command was would get far.
pub(super) fn check() -> Check {
    const NAME: &str = "capabilities";
    match Held::by_this_process() {
        Ok(held) => check_held(NAME, &held),
        Err(error) => Check::warning(NAME, format!("/proc/self/task: {error}"), "mount /proc"),
    }
}

fn check_held(name: &'static str, held: &Held) -> Check {
    let is_missing = |one: &Capability| !held.capabilities.contains(&one.to_string());
    let missing: Vec<_> = NEEDED_TO_START
        .into_iter()
        .filter(|(one, _)| is_missing(one))
        .map(|(one, purpose)| format!("{one} ({purpose})"))
        .collect();
    if missing.is_empty() {
        return Check::good(name, held.to_string());
    }
    let detail = format!("{held}; missing: {}", missing.join(", "));
    let consequence = match NEEDED_BY_KERNEL_PATH.iter().any(is_missing) {
        true => "without them sessions are relayed",
        false => "what needs them does not work",
    };
    Check::warning(name, detail, format!("{consequence}: {RUN_AS_ROOT}"))
}

/// What the router holds while it serves: once it has begun it needs nothing.
pub(super) fn check_of_router(held: &Held) -> Check {
    const NAME: &str = "router's privileges";
    if held.no_new_privileges && (held.uid == 0 || held.capabilities.is_empty()) {
        if held.has_foreign_groups() {
            return Check::warning(NAME, held.to_string(), FOREIGN_GROUPS_HINT);
        }
        return Check::good(NAME, held.to_string());
    }
    let hint = "it has not given everything up: restart `pgs serve`, and report what it logs";
    Check::warning(NAME, held.to_string(), hint)
}

/// Whether it can do what tenants want whose own servers end TLS.
pub(super) fn check_of_passthrough(held: &Held) -> Check {
    const NAME: &str = "TLS passed through";
    match server_tls::missing_to_pass_through(held) {
        None => Check::good(NAME, "the router can reach tenants' servers by TCP"),
        Some(missing) => {
            let detail = format!("tenants want it, and the router lacks {missing}");
            Check::fault(NAME, detail, server_tls::PRIVILEGES_HINT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn held(uid: u32, capabilities: &[&str]) -> Held {
        Held {
            uid,
            capabilities: capabilities.iter().map(ToString::to_string).collect(),
            groups: Vec::new(),
            no_new_privileges: true,
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_purpose() {
        let all = [
            "CAP_BPF",
            "CAP_NET_ADMIN",
            "CAP_PERFMON",
            "CAP_NET_BIND_SERVICE",
        ];
        assert_eq!(check_held("x", &held(0, &all)).verdict, Verdict::Good);
        let check = check_held("x", &held(7, &all[..3]));
        assert_eq!(check.verdict, Verdict::Warning);
        let missing = "missing: CAP_NET_BIND_SERVICE (to listen on a port below 1024)";
        assert!(check.detail.ends_with(missing), "{}", check.detail);
        let relayed = |check: Check| check.hint.unwrap().contains("relayed");
        assert!(!relayed(check));
        assert!(relayed(check_held("x", &held(7, &all[1..]))));
    }

    #[test]
    fn a_router_that_cannot_pass_tls_through_is_noticed() {
        let can = held(0, &["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]);
        assert_eq!(check_of_passthrough(&can).verdict, Verdict::Good);
        let check = check_of_passthrough(&held(0, &["CAP_SYS_ADMIN"]));
        assert_eq!(check.verdict, Verdict::Fault);
        assert!(
            check.detail.ends_with("lacks CAP_SYS_PTRACE"),
            "{}",
            check.detail
        );
    }

    #[test]
    fn a_router_that_kept_something_is_noticed() {
        assert_eq!(check_of_router(&held(7, &[])).verdict, Verdict::Good);
        assert_eq!(
            check_of_router(&held(0, &["CAP_DAC_OVERRIDE"])).verdict,
            Verdict::Good
        );
        let check = check_of_router(&held(7, &["CAP_BPF"]));
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(check.detail.contains("CAP_BPF"), "{}", check.detail);
    }

    #[test]
    fn a_router_in_groups_of_others_is_noticed() {
        let within = |uid| Held {
            groups: vec![103, 999],
            ..held(uid, &[])
        };
        let check = check_of_router(&within(7));
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(
            check.detail.ends_with(", also in groups 103, 999"),
            "{}",
            check.detail
        );
        assert!(check.hint.unwrap().contains("Docker"));
        assert_eq!(
            check_of_router(&within(0)).verdict,
            Verdict::Good,
            "root's say nothing"
        );
    }
}
