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
use crate::config::limits::KEEPER_GLOBALS_MAX;
use crate::config::limits::LISTEN_ADDRESSES_MAX;

/// Maps of one object that are kept.
const KEPT_MAPS: usize = 7;

// A keeper has the maps of two objects for a moment, and the session table, beside the listeners.
const _: () = assert!(LISTEN_ADDRESSES_MAX + 2 * KEPT_MAPS < KEEPER_GLOBALS_MAX);

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

/// What the last router has left.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Its descriptors that belong to no session, by name: its maps are used where they can be.
    pub descriptors: HashMap<String, OwnedFd>,
    /// Sessions that are to be gone on with.
    pub sessions: usize,
}

impl KernelPath {
    /// The maps that another router has left, whose sessions go on in them, with its programs.
    /// `None` where those are not all there, or are of another layout; or where they are of
    /// another object, and no session is left that needs them.
    pub(in crate::datapath) fn with_maps_of(
        &self,
        Inheritance {
            descriptors: mut held,
            sessions,
        }: Inheritance,
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
        // Places that look taken say nothing: of a session that ends without a router nobody clears
        // them.
        if object != self.object && sessions == 0 {
            return Ok(None);
        }
        let flows = Arc::new(FlowTable::map(maps.flows.as_fd(), maps.accounts.as_fd())?);
        let ways = self.ways.clone();
        Ok(Some(Self {
            maps,
            flows,
            ways,
            object,
        }))
    }

    /// The maps, by the names under which they are to be kept for the next router. None of a router
    /// whose sessions end with it: its program stays attached to them, and the next one may take
    /// it for the other.
    pub(in crate::datapath) fn kept_maps(&self) -> Vec<(String, BorrowedFd<'_>)> {
        if self.ways != Ways::Both {
            return Vec::new();
        }
        let maps: [_; KEPT_MAPS] = [
            (flow::FLOWS_MAP, &self.maps.flows),
            (flow::ACCOUNTS_MAP, &self.maps.accounts),
            (flow::INDEXES_MAP, &self.maps.indexes),
            (flow::SOURCES_MAP, &self.maps.sources),
            (flow::SOCKETS_MAP, &self.maps.sockets),
            (flow::PROBES_MAP, &self.maps.probes),
            (flow::NOTICES_MAP, &self.maps.notices),
        ];
        maps.into_iter()
            .map(|(map, descriptor)| (kept_name(map, &self.object), descriptor.as_fd()))
            .collect()
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
    use super::super::Place;
    use super::super::flows::Route;
    use super::*;
    use crate::datapath::arrivals_tests::kernel;
    use crate::datapath::direction::Direction;

    #[test]
    fn sha256_is_spelt_as_by_sha256sum() {
        assert_eq!(sha256(b"abc")[..16], *"ba7816bf8f01cfea");
        assert_eq!(ObjectDigest::of(b"abc").to_string(), "ba7816bf8f01cfea");
    }

    #[test]
    fn only_maps_that_sessions_go_on_in_are_kept_and_inherited() {
        let Some(mut kernel) = kernel() else { return };
        let left = |kernel: &KernelPath, sessions| Inheritance {
            descriptors: kernel
                .kept_maps()
                .into_iter()
                .map(|(name, map)| (name, map.try_clone_to_owned().unwrap()))
                .collect(),
            sessions,
        };
        let is_inherited = |by: &KernelPath, left| by.with_maps_of(left).unwrap().is_some();
        assert_eq!(kernel.kept_maps().len(), KEPT_MAPS);
        assert!(is_inherited(&kernel, left(&kernel, 0)));
        // A place whose session has ended without a router is as it was.
        let route = Route {
            source: 1,
            target: 2,
            aside: 3,
            account: 0,
        };
        let place = Place::from_number(0);
        kernel.flows.begin(place, Direction::ToClient, route);
        let mut other = KernelPath::load().unwrap();
        other.object = ObjectDigest::of(b"another object");
        assert!(!is_inherited(&other, left(&kernel, 0)));
        assert!(is_inherited(&other, left(&kernel, 1)));
        // The program of the other ways is attached to these.
        kernel.ways = Ways::ToClientOnly("no BTF".to_owned());
        assert!(left(&kernel, 1).descriptors.is_empty());
    }

    #[test]
    fn names_say_layout_object_and_map() {
        let name = kept_name(flow::FLOWS_MAP, &ObjectDigest::of(b"abc"));
        let layout = flow::LAYOUT_VERSION;
        assert_eq!(name, format!("map.{layout}.ba7816bf8f01cfea.flows"));
        assert!(is_kept_map(&name) && is_kept_map("map.1.flows") && !is_kept_map("listener.0"));
    }
}
