//! HAProxy and PgBouncer, which pgs is measured against. Nothing but the benchmark wants them.

use crate::report::Step;
use crate::{apt, process};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Program and the package that has it.
const PROGRAMS: [(&str, &str); 2] = [("haproxy", "haproxy"), ("pgbouncer", "pgbouncer")];
/// Asked by Debian's packages whether their service may start; absent on most machines
/// (<https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt>).
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_FORBIDS: &str = "#!/bin/sh\nexit 101\n";

/// Both as programs, neither as a service that runs now or after the next boot.
pub(super) fn ensure() -> Result<()> {
    let step = Step::new("HAProxy and PgBouncer");
    let missing = apt::missing(&PROGRAMS)?;
    if missing.is_empty() {
        step.done("installed");
        return Ok(());
    }
    let forbidding = Forbidding::begin()?;
    let installed = apt::install(&step, &missing);
    forbidding.end()?;
    installed?;
    if Path::new("/run/systemd/system").exists() {
        process::output(Command::new("systemctl").arg("disable").args(&missing))
            .context("keep the services from starting at the next boot")?;
    }
    step.done(format_args!(
        "{} installed, not as a service",
        missing.join(" and ")
    ));
    Ok(())
}

/// While it stands, packages that are installed do not start their services.
struct Forbidding {
    ours: bool,
}

impl Forbidding {
    fn begin() -> Result<Self> {
        let policy = Path::new(POLICY);
        // Somebody else's says what is to be: most likely the same.
        let ours = !policy.exists();
        if ours {
            fs::write(policy, POLICY_FORBIDS)?;
            fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }

    fn end(self) -> Result<()> {
        if self.ours {
            fs::remove_file(POLICY)
                .context("remove the policy that kept services from starting")?;
        }
        Ok(())
    }
}
