//! Trees as nobody makes them who does not mean harm.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::stat::mkdirat;

use super::*;

/// More than a process usually may have open, and more than a thread's stack has calls.
const LEVELS: usize = 20_000;

/// In memory: a disk takes a minute for so many directories.
const SHARED_MEMORY: &str = "/dev/shm";

fn open(path: &Path) -> OwnedFd {
    openat(AT_FDCWD, path, directory_flags(), Mode::empty()).unwrap()
}

/// One directory in the other, and in the last one a file.
fn dig(top: &Path, levels: usize) {
    let mut deepest = open(top);
    for _ in 0..levels {
        mkdirat(&deepest, "d", Mode::S_IRWXU).unwrap();
        deepest = openat(&deepest, "d", directory_flags(), Mode::empty()).unwrap();
    }
    let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
    openat(&deepest, "file", flags, Mode::S_IRWXU).unwrap();
}

struct Ground {
    root: tempfile::TempDir,
    tree: PathBuf,
    aside: PathBuf,
}

impl Ground {
    fn prepare() -> Self {
        let root = tempfile::tempdir_in(SHARED_MEMORY).unwrap();
        let (tree, aside) = (root.path().join("tree"), root.path().join("aside"));
        std::fs::create_dir(&tree).unwrap();
        Self { root, tree, aside }
    }

    fn is_clear(&self) -> bool {
        std::fs::read_dir(self.root.path()).unwrap().count() == 0
    }
}

#[test]
fn a_tree_of_any_depth_goes() {
    let ground = Ground::prepare();
    for name in ["0", "1", "one", "another"] {
        let top = ground.tree.join(name);
        std::fs::create_dir(&top).unwrap();
        dig(&top, if name == "one" { LEVELS } else { 3 });
    }
    remove(&ground.tree, &ground.aside).unwrap();
    assert!(ground.is_clear());
}

#[test]
fn what_a_killed_removal_has_left_goes_too() {
    let ground = Ground::prepare();
    for left in ["7", "9"] {
        let left = ground.aside.join(left);
        std::fs::create_dir_all(&left).unwrap();
        dig(&left, 3);
    }
    dig(&ground.tree, 3);
    remove(&ground.tree, &ground.aside).unwrap();
    assert!(ground.is_clear());
}

#[test]
fn a_link_in_its_place_goes_and_what_it_leads_to_stays() {
    let ground = Ground::prepare();
    let link = ground.root.path().join("link");
    dig(&ground.tree, 1);
    symlink(&ground.tree, &link).unwrap();
    remove(&link, &ground.aside).unwrap();
    assert!(link.symlink_metadata().is_err());
    assert!(ground.tree.join("d/file").exists());
}

/// As in a subvolume of btrfs: another file system does not take what is moved either.
#[test]
fn what_cannot_be_moved_out_of_it_goes_as_well() {
    let ground = Ground::prepare();
    let elsewhere = tempfile::tempdir().unwrap();
    let device = |path: &Path| path.metadata().unwrap().dev();
    if device(elsewhere.path()) == device(&ground.tree) {
        println!("skipped: there is one file system only");
        return;
    }
    let outside = ground.root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "").unwrap();
    dig(&ground.tree, LEVELS / 10);
    for level in ["", "d", "d/d"] {
        let level = ground.tree.join(level);
        symlink(&outside, level.join("link")).unwrap();
        // Names that are given to what is moved.
        for number in 0..20 {
            let name = level.join(number.to_string());
            if number % 2 == 0 {
                std::fs::write(name, "").unwrap();
            } else {
                std::fs::create_dir_all(name.join("within")).unwrap();
            }
        }
    }
    let mut removal = Removal::begin(elsewhere.path()).unwrap();
    removal.empty(&open(&ground.tree)).unwrap();
    for emptied in [ground.tree.as_path(), elsewhere.path()] {
        assert_eq!(std::fs::read_dir(emptied).unwrap().count(), 0);
    }
    assert!(outside.join("kept").exists());
}
