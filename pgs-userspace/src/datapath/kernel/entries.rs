//! How many entries a map has, asked from outside of the router that has it open.

use std::os::fd::OwnedFd;

use aya::maps::HashMap;
use aya::maps::Map;
use aya::maps::MapData;
use aya::maps::MapType;
use aya::maps::SockHash;

use super::KernelPathError;

/// Name of a hash map and number of its entries; none of another kind of map.
///
/// # Errors
/// The map cannot be read.
pub fn entries_of(map: OwnedFd) -> Result<Option<(String, usize)>, KernelPathError> {
    let data = MapData::from_fd(map)?;
    let info = data.info()?;
    let name = info.name_as_str().unwrap_or_default().to_owned();
    // A key that is taken out meanwhile has the count begin anew: it counts what it can.
    let count = match info.map_type()? {
        MapType::Hash => {
            let map: HashMap<_, u64, u32> = Map::HashMap(data).try_into()?;
            map.keys().filter(Result::is_ok).count()
        }
        MapType::SockHash => {
            let map: SockHash<_, u64> = Map::SockHash(data).try_into()?;
            map.keys().filter(Result::is_ok).count()
        }
        _ => return Ok(None),
    };
    Ok(Some((name, count)))
}
