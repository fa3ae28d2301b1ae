//! Of which commit the pgs was that a run had.

use crate::{process, workspace};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::process::Command;

/// What pgs is built from.
const DIRECTORIES: [&str; 3] = ["pgs-userspace", "pgs-common", "pgs-ebpf"];

/// A commit, and whether that was all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    /// Its name, as short as git makes it.
    commit: String,
    /// Whether what pgs is built from was otherwise than there.
    changed: bool,
}

impl Source {
    /// Of this tree; none where there is no git, or the tree is not its.
    pub(super) fn now() -> Option<Self> {
        Self::of(workspace::root())
    }

    fn of(tree: &Path) -> Option<Self> {
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            process::output(command.current_dir(tree).args(arguments)).ok()
        };
        let commit = git(&["rev-parse", "--short", "HEAD"])?;
        let status = [&["status", "--porcelain", "--"], &DIRECTORIES[..]].concat();
        let changed = !git(&status)?.is_empty();
        Some(Self { commit, changed })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = if self.changed { " with changes" } else { "" };
        write!(formatter, "commit {}{changed}", self.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_tree_is_of_its_commit_and_changes_beside_pgs_do_not_count() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path();
        assert_eq!(Source::of(path), None, "no tree of git's");
        let git = |arguments: &[&str]| {
            let who = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
            let mut command = Command::new("git");
            let command = command.current_dir(path).args(who).args(arguments);
            process::output(command).unwrap()
        };
        git(&["init", "--quiet"]);
        assert_eq!(Source::of(path), None, "no commit");
        for directory in DIRECTORIES {
            fs::create_dir(path.join(directory)).unwrap();
            fs::write(path.join(directory).join("a.rs"), "").unwrap();
        }
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "a"]);
        let commit = git(&["rev-parse", "--short", "HEAD"]);
        let shown = || Source::of(path).unwrap().to_string();
        assert_eq!(shown(), format!("commit {commit}"));
        fs::write(path.join("beside"), "").unwrap();
        assert_eq!(shown(), format!("commit {commit}"));
        for (directory, file) in [("pgs-ebpf", "a.rs"), ("pgs-common", "new.rs")] {
            let file = path.join(directory).join(file);
            fs::write(&file, "x").unwrap();
            assert_eq!(shown(), format!("commit {commit} with changes"));
            git(&["stash", "--quiet", "--include-untracked"]);
            assert_eq!(shown(), format!("commit {commit}"));
        }
    }
}
