//! Makes a registry hold so many tenants that have no container, to see how the router's look-up
//! grows with their number.
//!
//! `fill_registry STATE_DIR COUNT` registers or forgets tenants named `filler_0000` and on until
//! there are COUNT of them. Tenants of other names are left alone; `fill_registry STATE_DIR 0`
//! leaves only these. No container, volume or socket is made: a client that asks for such a tenant
//! is told that its server is down.

use std::error::Error;

use pgs::config::directories::Directories;
use pgs::tenant::id::TenantId;
use pgs::tenant::record::Access;
use pgs::tenant::record::Blueprint;
use pgs::tenant::record::VolumeFate;
use pgs::tenant::registry::Registry;

const PREFIX: &str = "filler_";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [state, count] = arguments.as_slice() else {
        return Err("usage: fill_registry STATE_DIR COUNT".into());
    };
    let count = count.to_str().and_then(|text| text.parse().ok());
    let count: usize = count.ok_or("COUNT is no number")?;
    let registry = Registry::open(&Directories::new(state, state))?;
    let present = registry
        .all()?
        .into_iter()
        .filter(|tenant| tenant.id.as_str().starts_with(PREFIX))
        .map(|tenant| tenant.id)
        .collect::<Vec<_>>();
    for id in present.iter().skip(count) {
        registry.forget(id)?;
    }
    for number in present.len()..count {
        register(
            &registry,
            &TenantId::parse(&format!("{PREFIX}{number:04}"))?,
        )?;
    }
    Ok(())
}

fn register(registry: &Registry, id: &TenantId) -> Result<(), Box<dyn Error>> {
    let blueprint = Blueprint {
        image: "none".to_owned(),
        memory_bytes: 1,
        cpu_millis: 1,
        network: None,
    };
    registry.begin_create(id, &blueprint, VolumeFate::Keep)?;
    registry.finish_create(id, Access::Enabled)?;
    Ok(())
}
