//! The maps as the next router finds them. Their names say the layout, and which object's programs
//! are attached: those stay with the maps, whatever the next router brings along.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pgs_common::flow;
use sha2::Digest as _;
use sha2::Sha256;

use super::FlowTable;
use super::KernelPath;
use super::KernelPathError;
use super::MapDescriptors;
use super::Ways;

/// What the names of all kept maps begin with.
const PREFIX: &str = "map.";

/// As many digits of a digest tell one object from another.
const DIGITS: usize = 16;

/// Which eBPF object: the first 16 hexadecimal digits of its SHA-256, as `pgs version` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::datapath) struct ObjectDigest(String);

impl ObjectDigest {
    pub(super) fn of(object: &[u8]) -> Self {
        let mut digits = sha256(object);
        digits.truncate(DIGITS);
        Self(digits)
    }
}

impl fmt::Display for ObjectDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// SHA-256 as sha256sum spells it.
pub fn sha256(object: &[u8]) -> String {
    Sha256::digest(object)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl KernelPath {
    /// The maps that another router has left, whose sessions go on in them, with its programs.
    /// `None` where those are not all there, or are of another layout; or where they are of
    /// another object, and no session needs them.
    pub(in crate::datapath) fn with_maps_of(
        &self,
        mut held: HashMap<String, OwnedFd>,
    ) -> Result<Option<Self>, KernelPathError> {
        if self.ways != Ways::Both {
            return Ok(None);
        }
        let suffix = suffix(flow::FLOWS_MAP);
        let object = held.keys().find_map(|name| {
            let digits = name.strip_prefix(&prefix())?.strip_suffix(&suffix)?;
            Some(ObjectDigest(digits.to_owned()))
        });
        let Some(object) = object else {
            return Ok(None);
        };
        let mut take = |map| held.remove(&kept_name(map, &object));
        let maps = (|| {
            Some(MapDescriptors {
                flows: take(flow::FLOWS_MAP)?,
                accounts: take(flow::ACCOUNTS_MAP)?,
                indexes: take(flow::INDEXES_MAP)?,
                sources: take(flow::SOURCES_MAP)?,
                sockets: take(flow::SOCKETS_MAP)?,
                probes: take(flow::PROBES_MAP)?,
                notices: take(flow::NOTICES_MAP)?,
            })
        })();
        let Some(maps) = maps else {
            return Ok(None);
        };
        let flows = Arc::new(FlowTable::map(maps.flows.as_fd(), maps.accounts.as_fd())?);
        if object != self.object && flows.taken().next().is_none() {
            return Ok(None);
        }
        let ways = self.ways.clone();
        Ok(Some(Self {
            maps,
            flows,
            ways,
            object,
        }))
    }

    /// The maps, by the names under which they are to be kept for the next router.
    pub(in crate::datapath) fn kept_maps(&self) -> [(String, BorrowedFd<'_>); 7] {
        [
            (flow::FLOWS_MAP, &self.maps.flows),
            (flow::ACCOUNTS_MAP, &self.maps.accounts),
            (flow::INDEXES_MAP, &self.maps.indexes),
            (flow::SOURCES_MAP, &self.maps.sources),
            (flow::SOCKETS_MAP, &self.maps.sockets),
            (flow::PROBES_MAP, &self.maps.probes),
            (flow::NOTICES_MAP, &self.maps.notices),
        ]
        .map(|(map, descriptor)| (kept_name(map, &self.object), descriptor.as_fd()))
    }

    /// Of which object the attached programs are.
    pub(in crate::datapath) fn object(&self) -> &ObjectDigest {
        &self.object
    }
}

/// Whether something is kept under this name that is a map, of whatever layout and object.
pub fn is_kept_map(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// For the layout that this program knows.
fn prefix() -> String {
    format!("{PREFIX}{}.", flow::LAYOUT_VERSION)
}

fn suffix(map: &str) -> String {
    format!(".{}", map.to_lowercase())
}

fn kept_name(map: &str, object: &ObjectDigest) -> String {
    format!("{}{object}{}", prefix(), suffix(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_spelt_as_by_sha256sum() {
        assert_eq!(sha256(b"abc")[..16], *"ba7816bf8f01cfea");
        assert_eq!(ObjectDigest::of(b"abc").to_string(), "ba7816bf8f01cfea");
    }

    #[test]
    fn names_say_layout_object_and_map() {
        let name = kept_name(flow::FLOWS_MAP, &ObjectDigest::of(b"abc"));
        let layout = flow::LAYOUT_VERSION;
        assert_eq!(name, format!("map.{layout}.ba7816bf8f01cfea.flows"));
        assert!(is_kept_map(&name) && is_kept_map("map.1.flows") && !is_kept_map("listener.0"));
    }
}
