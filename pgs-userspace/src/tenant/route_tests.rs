//! The routes, against a registry that other connections change.

use std::net::Ipv4Addr;
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

/// Whoever asks.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Which tenant lets the client in.
fn names(found: Destination) -> Option<String> {
    found.tenant().map(|route| route.tenant.to_string())
}

fn kept_out(tenant: &TenantId, why: WhyKeptOut) -> Destination {
    let tenant = tenant.clone();
    Destination::KeptOut(KeptOut { tenant, why })
}

fn set(registry: &Registry, tenant: &TenantId, name: &str, value: &str) {
    let mut change = SettingsChange::default();
    change.set(name, value).unwrap();
    assert!(registry.change_settings(tenant, &change).unwrap());
}

#[test]
fn the_user_counts_before_the_database() {
    let (_root, directories) = fixture();
    let registry = Registry::open(&directories).unwrap();
    add(&registry, "acme", Access::Enabled);
    add(&registry, "bob", Access::Enabled);
    let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
    let route = table.find("bob", "acme", CLIENT).unwrap().tenant();
    let route = route.unwrap();
    assert_eq!(route.tenant.as_str(), "bob");
    assert_eq!(
        route.socket_directory,
        directories.state().join("sockets/bob")
    );
    assert_eq!(
        names(table.find("acme", "bob", CLIENT).unwrap()).as_deref(),
        Some("acme")
    );
    assert_eq!(
        names(table.find("reader", "acme", CLIENT).unwrap()).as_deref(),
        Some("acme")
    );
    assert_eq!(
        names(table.find("acme", "", CLIENT).unwrap()).as_deref(),
        Some("acme")
    );
    for (user, database) in [
        ("", ""),
        ("Acme", "x"),
        ("acme\0", "x"),
        ("' OR 1=1 --", "%"),
    ] {
        let found = table.find(user, database, CLIENT).unwrap();
        assert_eq!(found, Destination::Unknown);
    }
}

#[test]
fn a_change_by_another_connection_counts_at_the_next_call() {
    let (_root, directories) = fixture();
    let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
    let found = || table.find("acme", "acme", CLIENT).unwrap();
    assert_eq!(found(), Destination::Unknown);
    let registry = Registry::open(&directories).unwrap();
    let acme = add(&registry, "acme", Access::Disabled);
    assert_eq!(found(), kept_out(&acme, WhyKeptOut::Disabled));
    registry.change_access(&acme, Access::Enabled).unwrap();
    assert_eq!(names(found()).as_deref(), Some("acme"));
    registry.begin_remove(&acme, VolumeFate::Delete).unwrap();
    let gone = Destination::Unknown;
    assert_eq!(found(), gone, "a tenant on its way out has no route");
}

#[test]
fn who_keeps_the_client_out_stands_before_nobody() {
    let (_root, directories) = fixture();
    let registry = Registry::open(&directories).unwrap();
    let open = add(&registry, "open", Access::Enabled);
    set(&registry, &open, "allow", "192.0.2.0/24");
    let closed = add(&registry, "closed", Access::Disabled);
    let fenced = add(&registry, "fenced", Access::Enabled);
    set(&registry, &fenced, "allow", "198.51.100.0/24");
    let table = RouteTable::open(&directories, TenantSettings::default()).unwrap();
    let find = |user, database| table.find(user, database, CLIENT).unwrap();
    let of_unknown = find("absent", "open");
    assert_eq!(names(of_unknown.clone()).as_deref(), Some("open"));
    let keep_out = [
        ("closed", &closed, WhyKeptOut::Disabled),
        ("fenced", &fenced, WhyKeptOut::AddressNotAllowed),
    ];
    for (name, id, why) in keep_out {
        assert_eq!(find(name, "open"), of_unknown, "{name}");
        assert_eq!(find("open", name), of_unknown, "{name}");
        // The operator's log is about the one that was named first.
        for (user, database) in [(name, "x"), ("x", name), (name, name)] {
            assert_eq!(find(user, database), kept_out(id, why));
        }
    }
    let first = kept_out(&closed, WhyKeptOut::Disabled);
    assert_eq!(find("closed", "fenced"), first);
    // To a client that it lets in, it is what it would be to everybody.
    let client = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
    let found = table.find("fenced", "open", client).unwrap();
    assert_eq!(names(found).as_deref(), Some("fenced"));
    let found = table.find("open", "x", client).unwrap();
    assert_eq!(found, kept_out(&open, WhyKeptOut::AddressNotAllowed));
}

#[test]
fn what_is_named_later_counts_where_the_first_leads_nowhere() {
    let id = |name| TenantId::parse(name).unwrap();
    let tenant = |name| {
        Destination::Tenant(Route {
            tenant: id(name),
            socket_directory: PathBuf::new(),
            settings: TenantSettings::default(),
        })
    };
    let out = |name| kept_out(&id(name), WhyKeptOut::Disabled);
    let unknown = || Destination::Unknown;
    for (first, later, found) in [
        (tenant("a"), tenant("b"), tenant("a")),
        (tenant("a"), unknown(), tenant("a")),
        (out("a"), tenant("b"), tenant("b")),
        (out("a"), out("b"), out("a")),
        (out("a"), unknown(), out("a")),
        (unknown(), tenant("b"), tenant("b")),
        (unknown(), out("b"), out("b")),
        (unknown(), unknown(), unknown()),
    ] {
        assert_eq!(
            first.clone().or(later.clone()),
            found,
            "{first:?} {later:?}"
        );
    }
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
    let found = || table.find("acme", "x", CLIENT);
    let settings = || found().map(|found| found.tenant().unwrap().settings);
    assert_eq!(settings().unwrap(), defaults);
    set(&registry, &acme, "connections_max", "3");
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
    assert!(table.find("old", "x", CLIENT).unwrap().tenant().is_some());
    drop(table.take().unwrap());
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("registry.sqlite{suffix}");
        let path = directories.registry_directory().join(file);
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(table.find("old", "x", CLIENT).is_err(), "the file is gone");
    add(
        &Registry::open(&directories).unwrap(),
        "new",
        Access::Enabled,
    );
    let found = table.find("old", "x", CLIENT).unwrap();
    assert_eq!(found, Destination::Unknown);
    assert_eq!(
        names(table.find("new", "x", CLIENT).unwrap()).as_deref(),
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
                    let found = table.find(id.as_str(), "x", CLIENT).unwrap();
                    assert_eq!(found.id(), Some(id));
                    assert!(found.tenant().is_some(), "not enabled");
                }
            });
        }
    });
    let each = begin.elapsed() / (8 * u32::try_from(calls).unwrap());
    println!("{each:?} a call, {} threads", 8);
    assert!(each < Duration::from_millis(2), "{each:?} a call");
    assert!(table.idle.lock().unwrap().len() <= ROUTE_READERS_IDLE_MAX);
}
