//! How pgs carried the sessions of one subject, as the router itself says.

use super::endpoint::Subject;
use anyhow::{Result, ensure};
use std::fmt;

/// The sessions of one subject.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Carried {
    /// Those that began.
    sessions: u64,
    /// Those that have ended; the rest is about these.
    closed: u64,
    kernel: u64,
    /// Encrypted between client and router.
    encrypted: u64,
}

impl Carried {
    /// `sessions` is the router's counter; its log says of every session, when it ends, which way
    /// it went.
    pub(super) fn read(sessions: u64, log: &str) -> Self {
        let mut carried = Self {
            sessions,
            ..Self::default()
        };
        for line in log.lines().filter(|line| line.contains("session closed")) {
            carried.closed += 1;
            carried.kernel += u64::from(line.contains("path=\"kernel\""));
            carried.encrypted += u64::from(line.contains("path=\"tls\""));
        }
        carried
    }

    /// Whether the log has the end of all of them.
    pub(super) fn all_closed(&self) -> bool {
        self.closed == self.sessions
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.closed += other.closed;
        self.kernel += other.kernel;
        self.encrypted += other.encrypted;
    }

    /// How many were encrypted, where that is what is tested.
    pub(super) fn encrypted(&self, subject: Subject) -> Option<u64> {
        (subject == Subject::Tls).then_some(self.encrypted)
    }

    /// Fails if the sessions did not go the way that is tested.
    pub(super) fn check(&self, subject: Subject) -> Result<()> {
        ensure!(self.sessions > 0, "pgs carried no session");
        match subject {
            Subject::Kernel => ensure!(self.kernel > 0, "no session went through the kernel"),
            Subject::Tls => ensure!(
                self.encrypted == self.sessions,
                "of {} sessions {} ended, and {} of them were encrypted",
                self.sessions,
                self.closed,
                self.encrypted
            ),
            Subject::Direct | Subject::Relay => {}
        }
        Ok(())
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} sessions, {} in the kernel, {} over TLS",
            self.sessions, self.kernel, self.encrypted
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO session begins session=1 tenant=a\n\
        INFO session closed session=1 tenant=a path=\"tls\" seconds=1\n\
        INFO session closed session=2 tenant=a path=\"tls\" seconds=1\n";

    #[test]
    fn tls_is_shown_only_if_every_session_was_encrypted() {
        let all = Carried::read(2, LOG);
        assert!(all.all_closed() && all.check(Subject::Tls).is_ok());
        // One of which nothing is known, and one that went another way.
        let unknown = Carried::read(3, LOG);
        assert!(!unknown.all_closed() && unknown.check(Subject::Tls).is_err());
        let clear = format!("{LOG}INFO session closed session=3 tenant=a path=\"relay\"\n");
        let clear = Carried::read(3, &clear);
        assert!(clear.all_closed() && clear.check(Subject::Tls).is_err());
        assert!(Carried::read(0, "").check(Subject::Tls).is_err());
    }

    #[test]
    fn the_kernel_path_is_shown_by_one_session_at_least() {
        assert!(Carried::read(2, LOG).check(Subject::Kernel).is_err());
        let log = LOG.replace("path=\"tls\"", "path=\"kernel\"");
        assert!(Carried::read(2, &log).check(Subject::Kernel).is_ok());
    }
}
