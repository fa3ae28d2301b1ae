//! The user that the router runs as.

use std::str::FromStr;

use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;
use nix::unistd::setgroups;
use nix::unistd::setresgid;
use nix::unistd::setresuid;

use super::PrivilegeError;
use super::system;

/// A user and a group of this machine, neither of them root's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    /// As it was given.
    pub name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

/// Why a text names no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownUser {
    /// Neither a name nor a number that this machine knows.
    #[error("there is no {kind} `{name}` on this machine")]
    Absent {
        /// User or group.
        kind: &'static str,
        /// As it was given.
        name: String,
    },
    /// A number without an entry has no group of its own.
    #[error("user {0} is no entry of the user database: name a group too, as in `{0}:{0}`")]
    NoGroup(u32),
    /// Root is who it is without being named.
    #[error("`{0}` is root, which is what the router is without this option")]
    Root(String),
}

/// `<user>` or `<user>:<group>`, by name or by number.
impl FromStr for ServiceUser {
    type Err = UnknownUser;

    fn from_str(text: &str) -> Result<Self, UnknownUser> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let absent = |kind, name: &str| UnknownUser::Absent {
            kind,
            name: name.to_owned(),
        };
        let number = user.parse().ok().map(Uid::from_raw);
        // A database that cannot be read knows nobody.
        let entry = match number {
            Some(uid) => User::from_uid(uid),
            None => User::from_name(user),
        };
        let entry = entry.ok().flatten();
        let uid = entry.as_ref().map(|entry| entry.uid).or(number);
        let uid = uid.ok_or_else(|| absent("user", user))?;
        let gid = match group {
            Some(group) => group_id(group).ok_or_else(|| absent("group", group))?,
            None => match &entry {
                Some(entry) => entry.gid,
                None => return Err(UnknownUser::NoGroup(uid.as_raw())),
            },
        };
        if uid.is_root() || gid.as_raw() == 0 {
            return Err(UnknownUser::Root(text.to_owned()));
        }
        Ok(Self {
            name: text.to_owned(),
            uid,
            gid,
        })
    }
}

fn group_id(group: &str) -> Option<Gid> {
    let number = group.parse().ok().map(Gid::from_raw);
    number.or_else(|| Some(Group::from_name(group).ok()??.gid))
}

impl ServiceUser {
    /// Becomes that user, for ever. In no group but its own, whatever the group database says: all
    /// that the router works with is handed to this one, and another may be worth as much as root,
    /// such as the one that reaches Docker.
    pub(super) fn assume(&self) -> Result<(), PrivilegeError> {
        setgroups(&[self.gid]).map_err(system("setgroups"))?;
        let Self { uid, gid, .. } = *self;
        setresgid(gid, gid, gid).map_err(system("setresgid"))?;
        setresuid(uid, uid, uid).map_err(system("setresuid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_by_number() {
        let nobody: ServiceUser = "nobody".parse().unwrap();
        assert_eq!(nobody.uid.as_raw(), 65_534);
        let same: ServiceUser = "65534".parse().unwrap();
        assert_eq!((same.uid, same.gid), (nobody.uid, nobody.gid));
        let numbers: ServiceUser = "4242:4343".parse().unwrap();
        assert_eq!((numbers.uid.as_raw(), numbers.gid.as_raw()), (4242, 4343));
    }

    #[test]
    fn what_names_nobody() {
        let error = |text: &str| text.parse::<ServiceUser>().unwrap_err().to_string();
        assert_eq!(
            error("no-such-user"),
            "there is no user `no-such-user` on this machine"
        );
        assert_eq!(
            error("nobody:no-group"),
            "there is no group `no-group` on this machine"
        );
        assert!(error("4242").contains("`4242:4242`"), "{}", error("4242"));
        for root in ["root", "0:0", "0:4242", "4242:0", "nobody:root"] {
            assert!(error(root).contains("is root"), "{root}");
        }
        assert!("".parse::<ServiceUser>().is_err() && ":".parse::<ServiceUser>().is_err());
    }
}
