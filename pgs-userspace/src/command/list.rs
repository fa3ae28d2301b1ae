//! `pgs list`.

use serde_json::json;

use crate::cli::FormatArguments;
use crate::command::Context;
use crate::command::inventory;
use crate::command::inventory::Entry;
use crate::command::reconcile;
use crate::error::Error;
use crate::output::table::Table;
use crate::tenant::registry::Registry;

/// Lists every tenant, and what is left of some.
pub(super) async fn run(context: &Context, arguments: FormatArguments) -> Result<(), Error> {
    let registry = Registry::open(&context.directories)?;
    reconcile::run(context, &registry).await?;
    let inventory = inventory::take(context, &registry).await?;
    if arguments.json {
        context
            .printer
            .json(&json!({ "tenants": inventory.entries }))?;
    } else if inventory.entries.is_empty() {
        context.printer.note("there are no tenants yet");
        context.printer.hint("`pgs create acme --enable` makes one");
    } else {
        context.printer.line(&table(&inventory.entries).render())?;
        for hint in inventory.entries.iter().filter_map(Entry::hint) {
            context.printer.hint(&hint);
        }
    }
    // Last: what the registry knows is worth printing without Docker too.
    inventory.engine.map(drop).map_err(Error::from)
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new(&["TENANT", "STATE", "ACCESS", "IMAGE", "MEMORY", "CPUS"]);
    for entry in entries {
        let (image, memory, cpus) = match &entry.blueprint {
            Some(blueprint) => (
                blueprint.image.as_str(),
                format!("{} MiB", blueprint.memory_bytes >> 20),
                cores(blueprint.cpu_millis),
            ),
            None => ("-", "-".to_owned(), "-".to_owned()),
        };
        let access = entry.access.as_str();
        table.row([
            entry.tenant.as_str(),
            entry.state(),
            access,
            image,
            &memory,
            &cpus,
        ]);
    }
    table
}

/// Thousandths of a core as people write them: `2`, `0.5`.
pub(super) fn cores(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_have_no_needless_digits() {
        let written: Vec<_> = [2_000, 500, 1_250, 10, 10_000].map(cores).into();
        assert_eq!(written, ["2", "0.5", "1.25", "0.01", "10"]);
    }
}
