//! Removing a tree of directories that somebody else has made, however deep it is.
//!
//! To go down into it would take a descriptor, or a name, for each level, and whoever made it
//! chooses how many there are. So nobody goes down: a directory is emptied of files, and the
//! directories in it are moved out of it, into one that waits beside the tree, where they have
//! numbers for names and are emptied in their turn. At most five descriptors are open at once, and
//! what is remembered is two numbers.
//!
//! No link is followed: everything is named by one name in a directory that is held open.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::fs::ReadDir;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::fcntl::renameat;
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;

/// Removes the tree, by way of a directory `aside` of the same file system, which nobody else may
/// write to. What an earlier removal, which was killed, has left in there goes too.
///
/// That neither is there is no error.
///
/// # Errors
/// Something in the tree cannot be removed.
pub(super) fn remove(tree: &Path, aside: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(aside) {
        // Not even the directory that both would be in.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut removal = Removal::begin(aside)?;
    let name = removal.next_name();
    unless_gone(renameat(AT_FDCWD, tree, &removal.aside, name.as_str()))?;
    while removal.first < removal.end {
        removal.remove_first()?;
    }
    std::fs::remove_dir(aside)
}

/// What waits to be removed.
struct Removal {
    aside: OwnedFd,
    /// All that waits has a number from here on for its name.
    first: u64,
    /// The number that no name has had yet.
    end: u64,
}

impl Removal {
    fn begin(aside: &Path) -> io::Result<Self> {
        let aside = openat(AT_FDCWD, aside, directory_flags(), Mode::empty())?;
        let (mut first, mut end) = (u64::MAX, 0);
        for entry in entries(&aside)? {
            let name = entry?.file_name();
            // Any other name is not ours: the directory will stay, and the error say so.
            if let Some(number) = name.to_str().and_then(|name| name.parse::<u64>().ok()) {
                first = first.min(number);
                end = end.max(number.saturating_add(1));
            }
        }
        let first = first.min(end);
        Ok(Self { aside, first, end })
    }

    fn next_name(&mut self) -> String {
        let name = self.end.to_string();
        self.end = self.end.saturating_add(1);
        name
    }

    fn remove_first(&mut self) -> io::Result<()> {
        let name = self.first.to_string();
        match openat(&self.aside, name.as_str(), directory_flags(), Mode::empty()) {
            Ok(directory) => {
                self.empty(&directory)?;
                unlinkat(&self.aside, name.as_str(), UnlinkatFlags::RemoveDir)?;
            }
            // The tree was none.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                unlinkat(&self.aside, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
            }
            // Whatever had that number was removed before, or never was there.
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        self.first = self.first.saturating_add(1);
        Ok(())
    }

    /// Takes all out of a directory.
    fn empty(&mut self, directory: &OwnedFd) -> io::Result<()> {
        loop {
            let mut has_more = false;
            for entry in entries(directory)? {
                let name = entry?.file_name();
                if !try_unlink(directory, &name)? && !self.try_move_aside(directory, &name)? {
                    self.raise(directory, &name)?;
                    has_more = true;
                }
            }
            if !has_more {
                return Ok(());
            }
        }
    }

    /// Moves a directory aside. False where it cannot be moved that far: of a subvolume of btrfs,
    /// which whoever made the tree can have made too, nothing can be moved out.
    fn try_move_aside(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
        let next = self.next_name();
        match renameat(parent, name, &self.aside, next.as_str()) {
            Err(Errno::EXDEV) => Ok(false),
            done => unless_gone(done).map(|()| true),
        }
    }

    /// Removes a directory that cannot be moved aside. The directories in it come into its parent
    /// instead, which is in the same subvolume.
    fn raise(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let directory = openat(parent, name, directory_flags(), Mode::empty())?;
        for entry in entries(&directory)? {
            let entry = entry?.file_name();
            if !try_unlink(&directory, &entry)? && !self.try_move_aside(&directory, &entry)? {
                self.move_up(&directory, &entry, parent)?;
            }
        }
        Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
    }

    /// There may be any names already where it goes, and each number is tried once.
    fn move_up(&mut self, from: &OwnedFd, name: &OsStr, to: &OwnedFd) -> io::Result<()> {
        loop {
            let next = self.next_name();
            match renameat(from, name, to, next.as_str()) {
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                done => return unless_gone(done),
            }
        }
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// What is in a directory: of the one that is held open, whatever its name leads to by now.
fn entries(directory: &OwnedFd) -> io::Result<ReadDir> {
    std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Removes what is no directory. False where it is one.
fn try_unlink(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => Ok(false),
        done => unless_gone(done).map(|()| true),
    }
}

fn unless_gone(done: nix::Result<()>) -> io::Result<()> {
    match done {
        Err(Errno::ENOENT) => Ok(()),
        done => Ok(done?),
    }
}

#[cfg(test)]
#[path = "foreign_tree_tests.rs"]
mod tests;
