//! What the environment says, and what systemd is sent, with a socket in its place.

use std::os::unix::net::UnixDatagram;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Option<Environment> {
    let find = |name: &str| pairs.iter().find(|(one, _)| *one == name);
    Environment::read(|name| find(name).map(|(_, value)| (*value).to_owned()), 7)
}

#[test]
fn a_store_needs_both_the_socket_and_room() {
    let socket = ("NOTIFY_SOCKET", "/run/systemd/notify");
    assert_eq!(environment(&[socket]), None);
    assert_eq!(environment(&[socket, ("FDSTORE", "0")]), None);
    assert_eq!(environment(&[("FDSTORE", "9")]), None);
    let found = environment(&[socket, ("FDSTORE", "9")]).unwrap();
    assert!(found.passed.is_empty());
}

#[test]
fn passed_descriptors_count_only_for_the_process_that_they_are_for() {
    let of = |process_id| {
        environment(&[
            ("NOTIFY_SOCKET", "@x"),
            ("FDSTORE", "9"),
            ("LISTEN_PID", process_id),
            ("LISTEN_FDS", "3"),
            ("LISTEN_FDNAMES", "pgs.slot.4.backend:http"),
        ])
        .unwrap()
    };
    assert!(of("8").passed.is_empty());
    assert_eq!(of("7").passed, ["pgs.slot.4.backend", "http", ""]);
}

#[test]
fn names_survive_the_way() {
    let slot = Slot::new(40).unwrap();
    for part in 0..PART_NAMES.len() {
        let name = slot_name(slot, part);
        assert_eq!(Name::parse(&name), Some(Name::Slot(slot, part)));
    }
    let name = GlobalName::new("listener.0").unwrap();
    assert_eq!(Name::parse(&global_name(&name)), Some(Name::Global(name)));
    for foreign in [
        "",
        "http",
        "pgs.slot.x.client",
        "pgs.slot.1",
        "pgs.slot.1.other",
    ] {
        assert_eq!(Name::parse(foreign), None, "{foreign}");
    }
}

/// Datagrams that wait at the manager's socket.
fn said(manager: &UnixDatagram) -> Vec<String> {
    let mut bytes = [0; 512];
    let texts = std::iter::from_fn(|| {
        let length = manager.recv(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        Some(text.replace("\nFDPOLL=0", "").replace("\nFDNAME=", " "))
    });
    texts.collect()
}

fn of_slot(verb: &str, slot: Slot) -> Vec<String> {
    let parts = 0..PART_NAMES.len();
    parts
        .map(|part| format!("{verb}=1 {}", slot_name(slot, part)))
        .collect()
}

#[test]
fn what_systemd_did_not_take_is_made_up_for() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let found = environment(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("FDSTORE", "9")]);
    let store = SystemdStore::open(&found.unwrap()).unwrap();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let three = || SlotDescriptors::from_parts([(); 3].map(|()| Some(one.as_fd())));
    let slot = |number| Slot::new(number).unwrap();

    store.put_slot(slot(0), &three()).unwrap();
    assert_eq!(said(&manager), of_slot("FDSTORE", slot(0)));
    assert!(store.holds_slot(slot(0)) && !store.holds_slot(slot(1)));
    // Nothing is there to be removed.
    store.drop_slot(slot(1)).unwrap();
    assert_eq!(said(&manager), Vec::<String>::new());

    // Nobody reads, until its queue is full.
    let refused = (1..)
        .map(slot)
        .find(|slot| store.put_slot(*slot, &three()).is_err());
    let refused = refused.unwrap();
    assert!(!store.holds_slot(refused) && store.holds_slot(slot(0)));
    assert!(matches!(store.health(), Health::Failing(_)));
    assert!(store.drop_slot(slot(0)).is_err());
    said(&manager);

    let next = slot(refused.number() + 1);
    store.put_slot(next, &three()).unwrap();
    let expected = [
        of_slot("FDSTORE", next),
        of_slot("FDSTOREREMOVE", slot(0)),
        of_slot("FDSTOREREMOVE", refused),
    ];
    assert_eq!(said(&manager), expected.concat());
    assert_eq!(store.health(), Health::Working);
    store.put_slot(next, &three()).unwrap();
    let again = [of_slot("FDSTOREREMOVE", next), of_slot("FDSTORE", next)];
    assert_eq!(said(&manager), again.concat());
}

#[test]
fn one_bound_is_for_the_whole_of_a_put() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let found = environment(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("FDSTORE", "9")]);
    let store = SystemdStore::open(&found.unwrap()).unwrap();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let three = || SlotDescriptors::from_parts([(); 3].map(|()| Some(one.as_fd())));
    let slot = |number| Slot::new(number).unwrap();
    while store.put_slot(slot(0), &three()).is_ok() {}
    // It takes one at a time, each of them in time.
    let pause = KEEPER_PUT_DEADLINE * 3 / 4;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..PART_NAMES.len() * 2 {
                std::thread::sleep(pause);
                manager.recv(&mut [0; 512]).unwrap();
            }
        });
        let begun = Instant::now();
        assert!(store.put_slot(slot(0), &three()).is_err());
        let took = begun.elapsed();
        assert!(took < pause * 4, "{took:?}");
    });
}
