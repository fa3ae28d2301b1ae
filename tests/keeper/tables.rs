//! The kernel's tables, as a router leaves them to the next.

use anyhow::Context as _;
use anyhow::bail;
use aya::maps::HashMap;
use aya::maps::Map;
use aya::maps::MapData;
use aya::maps::SockHash;
use pgs::keeper::store::Held;

/// How many entries a map has, of which the name ends so.
pub(crate) fn entries(held: &mut Held, name: &str) -> anyhow::Result<usize> {
    let mut names = held.globals.iter().map(|(name, _)| name.as_str());
    let index = names
        .position(|kept| kept.starts_with("map.") && kept.ends_with(name))
        .with_context(|| format!("no map is called {name}"))?;
    let (_, descriptor) = held.globals.swap_remove(index);
    let map = Map::from_map_data(MapData::from_fd(descriptor)?)?;
    match &map {
        Map::HashMap(_) => {
            let map = HashMap::<_, u64, u32>::try_from(map)?;
            Ok(map.keys().collect::<Result<Vec<_>, _>>()?.len())
        }
        Map::SockHash(_) => {
            let map = SockHash::<_, u64>::try_from(map)?;
            Ok(map.keys().collect::<Result<Vec<_>, _>>()?.len())
        }
        _ => bail!("{name} is another kind of map"),
    }
}
