//! The routes, against a registry that other connections change.

use std::time::Duration;
use std::time::Instant;

use super::*;
use crate::tenant::record::Blueprint;
use crate::tenant::record::VolumeFate;
use crate::tenant::registry::Registry;
use crate::tenant::stored_settings::SettingsChange;

fn fixture() -> (tempfile::TempDir, Directories) {
    let root = tempfile::tempdir().unwrap();
    let directories = Directories::new(root.path().join("state"), root.path().join("run"));
    (root, directories)
}

fn add(registry: &Registry, name: &str, access: Access) -> TenantId {
    let image = "postgres:18".to_owned();
    let blueprint = Blueprint {
        image,
        memory_bytes: 1,
        cpu_millis: 1,
        network: None,
    };
    let id = TenantId::parse(name).unwrap();
    registry
        .begin_create(&id, &blueprint, VolumeFate::Delete)
        .unwrap();
    registry.finish_create(&id, access).unwrap();
    id
}

fn names(route: Option<Route>) -> Option<String> {
    route.map(|route| route.tenant.to_string())
}

#[test]
fn the_user_counts_before_the_database() {
    let (_root, directories) = fixture();
    let registry = Registry::open(&directories).unwrap();
    add(&registry, "acme", Access::Enabled);
    add(&registry, "bob", Access::Disabled);
    let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
    let route = table.find("bob", "acme").unwrap().unwrap();
    assert_eq!(
        (route.tenant.as_str(), route.access),
        ("bob", Access::Disabled)
    );
    assert_eq!(
        route.socket_directory,
        directories.state().join("sockets/bob")
    );
    assert_eq!(
        names(table.find("acme", "bob").unwrap()).as_deref(),
        Some("acme")
    );
    assert_eq!(
        names(table.find("reader", "acme").unwrap()).as_deref(),
        Some("acme")
    );
    assert_eq!(
        names(table.find("acme", "").unwrap()).as_deref(),
        Some("acme")
    );
    for (user, database) in [
        ("", ""),
        ("Acme", "x"),
        ("acme\0", "x"),
        ("' OR 1=1 --", "%"),
    ] {
        assert_eq!(table.find(user, database).unwrap(), None);
    }
}

#[test]
fn a_change_by_another_connection_counts_at_the_next_call() {
    let (_root, directories) = fixture();
    let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
    assert_eq!(table.find("acme", "acme").unwrap(), None);
    let registry = Registry::open(&directories).unwrap();
    let acme = add(&registry, "acme", Access::Disabled);
    let access = || {
        table
            .find("acme", "acme")
            .unwrap()
            .map(|route| route.access)
    };
    assert_eq!(access(), Some(Access::Disabled));
    registry.change_access(&acme, Access::Enabled).unwrap();
    assert_eq!(access(), Some(Access::Enabled));
    registry.begin_remove(&acme, VolumeFate::Delete).unwrap();
    assert_eq!(access(), None, "a tenant on its way out has no route");
}

#[test]
fn settings_come_with_the_route_on_top_of_the_defaults() {
    let (_root, directories) = fixture();
    let registry = Registry::open(&directories).unwrap();
    let acme = add(&registry, "acme", Access::Enabled);
    let defaults = TenantSettings {
        connection_burst: 7,
        ..TenantSettings::default()
    };
    let table = RouteTable::open(&directories, defaults.clone()).unwrap();
    let settings = || table.find("acme", "x").map(|route| route.unwrap().settings);
    assert_eq!(settings().unwrap(), defaults);
    let mut change = SettingsChange::default();
    change.set("connections_max", "3").unwrap();
    assert!(registry.change_settings(&acme, &change).unwrap());
    let found = settings().unwrap();
    assert_eq!((found.connections_max, found.connection_burst), (3, 7));
    Connection::open(directories.registry())
        .unwrap()
        .execute("UPDATE tenant_setting SET value = 'x'", [])
        .unwrap();
    let error = settings().unwrap_err();
    assert!(matches!(error, RegistryError::Setting { .. }), "{error}");
}

#[test]
fn a_replaced_registry_is_noticed() {
    let (_root, directories) = fixture();
    let registry = Registry::open(&directories).unwrap();
    add(&registry, "old", Access::Enabled);
    drop(registry);
    let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
    assert!(table.find("old", "x").unwrap().is_some());
    drop(table.take().unwrap());
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("registry.sqlite{suffix}");
        let path = directories.registry_directory().join(file);
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(table.find("old", "x").is_err(), "the file is gone");
    add(
        &Registry::open(&directories).unwrap(),
        "new",
        Access::Enabled,
    );
    assert_eq!(table.find("old", "x").unwrap(), None);
    assert_eq!(
        names(table.find("new", "x").unwrap()).as_deref(),
        Some("new")
    );
}

#[test]
fn answers_many_threads_quickly_while_another_process_writes() {
    let (_root, directories) = fixture();
    let registry = Registry::open(&directories).unwrap();
    let count = 1000;
    let ids: Vec<_> = (0..count)
        .map(|n| add(&registry, &format!("t{n}"), Access::Enabled))
        .collect();
    let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
    // A transaction that stays open: readers of the write-ahead log do not wait for it.
    let writer = Connection::open(directories.registry()).unwrap();
    writer
        .execute_batch("BEGIN IMMEDIATE; UPDATE tenant SET access = 'disabled'")
        .unwrap();
    let calls = 500;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (table, ids) = (&table, &ids);
            scope.spawn(move || {
                for call in 0..calls {
                    let id = &ids[(thread * 131 + call * 7) % count];
                    let route = table.find(id.as_str(), "x").unwrap().unwrap();
                    assert_eq!((&route.tenant, route.access), (id, Access::Enabled));
                }
            });
        }
    });
    let each = begin.elapsed() / (8 * u32::try_from(calls).unwrap());
    println!("{each:?} a call, {} threads", 8);
    assert!(each < Duration::from_millis(2), "{each:?} a call");
    assert!(table.idle.lock().unwrap().len() <= ROUTE_READERS_IDLE_MAX);
}
