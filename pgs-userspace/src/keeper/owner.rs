//! Which process serves a session itself. Its number alone does not say: once it has ended, another
//! process can get that.

use std::fs;

/// A process, and when it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its number.
    pub process_id: u32,
    /// In clock ticks since the machine was booted; zero where that is not known.
    pub started_ticks: u64,
}

impl Owner {
    /// This process.
    pub fn this() -> Self {
        let process_id = std::process::id();
        Self {
            process_id,
            started_ticks: started_ticks(process_id).unwrap_or(0),
        }
    }

    /// Whether the process runs, as far as that can be known.
    pub fn is_alive(&self) -> bool {
        let Some(started) = started_ticks(self.process_id) else {
            return false;
        };
        // An older router did not write down when it was started.
        self.started_ticks == 0 || started == 0 || self.started_ticks == started
    }
}

/// When a process was started; none where there is no such process, or where it has ended and
/// nobody has asked how.
fn started_ticks(process_id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    let runs = !has_ended(&stat);
    runs.then(|| start_of(&stat).unwrap_or(0))
}

/// Field 3 of `/proc/<pid>/stat`: a zombie, or dead.
fn has_ended(stat: &str) -> bool {
    let behind_name = stat.rsplit_once(')');
    behind_name.is_some_and(|(_, fields)| fields.trim_start().starts_with(['Z', 'X']))
}

/// Field 22 of `/proc/<pid>/stat`, see proc(5). The second one is the program's name in
/// parentheses, in which there may be spaces and parentheses.
fn start_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name
        .split_ascii_whitespace()
        .nth(22 - 3)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::Duration;
    use std::time::Instant;

    use super::*;

    #[test]
    fn another_process_with_the_same_number_is_not_it() {
        let this = Owner::this();
        assert!(this.started_ticks != 0 && this.is_alive());
        let before = Owner {
            started_ticks: this.started_ticks - 1,
            ..this
        };
        assert!(!before.is_alive());
        let of_older_router = Owner {
            started_ticks: 0,
            ..this
        };
        assert!(of_older_router.is_alive());
        let gone = Owner {
            process_id: u32::MAX,
            ..this
        };
        assert!(!gone.is_alive());
    }

    #[test]
    fn one_that_has_ended_unnoticed_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let started_ticks = started_ticks(child.id()).unwrap();
        let owner = Owner {
            process_id: child.id(),
            started_ticks,
        };
        assert!(owner.is_alive());
        child.kill().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while owner.is_alive() {
            assert!(Instant::now() < until, "a zombie is alive");
            thread::sleep(Duration::from_millis(10));
        }
        child.wait().unwrap();
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["pgs", "a b", "a) S 1 (b"] {
            assert_eq!(start_of(&format!("7 ({name}) {fields}")), Some(4_711));
        }
        assert_eq!(start_of("7 (pgs) S 1"), None);
    }
}
