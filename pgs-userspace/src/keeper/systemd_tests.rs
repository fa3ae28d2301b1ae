//! What the environment says, and what systemd is sent, with a socket in its place.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::config::limits::KEEPER_SLOTS_MAX;

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
    assert_eq!(found.descriptors_max, 9);
}

#[test]
fn passed_descriptors_count_only_for_the_process_that_they_are_for() {
    let of = |process_id| {
        environment(&[
            ("NOTIFY_SOCKET", "@x"),
            ("FDSTORE", "9"),
            ("LISTEN_PID", process_id),
            ("LISTEN_FDS", "3"),
            ("LISTEN_FDNAMES", ">4:http"),
        ])
        .unwrap()
    };
    assert!(of("8").passed.is_empty());
    assert_eq!(of("7").passed, [">4", "http", ""]);
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
    named(verb, slot, Naming::Short)
}

fn named(verb: &str, slot: Slot, naming: Naming) -> Vec<String> {
    slot_names(slot, naming)
        .map(|name| format!("{verb}=1 {name}"))
        .to_vec()
}

fn slot(number: u32) -> Slot {
    Slot::new(number).unwrap()
}

/// A manager's socket in a directory of its own, and a store by it for so many descriptors.
fn opened(descriptors_max: &str) -> (TempDir, UnixDatagram, SystemdStore) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let socket = ("NOTIFY_SOCKET", path.to_str().unwrap());
    let found = environment(&[socket, ("FDSTORE", descriptors_max)]);
    let store = SystemdStore::open(&found.unwrap()).unwrap();
    (root, manager, store)
}

#[test]
fn what_systemd_did_not_take_is_made_up_for() {
    let (_root, manager, store) = opened("9999");
    manager.set_nonblocking(true).unwrap();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let three = || SlotDescriptors::from_parts([(); 3].map(|()| Some(one.as_fd())));

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
    let (_root, manager, store) = opened("9");
    let (one, _other) = UnixDatagram::pair().unwrap();
    let three = || SlotDescriptors::from_parts([(); 3].map(|()| Some(one.as_fd())));
    while store.put_slot(slot(0), &three()).is_ok() {}
    // It takes one at a time, each of them in time.
    let pause = KEEPER_PUT_DEADLINE * 3 / 4;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 * 2 {
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

fn why_failing(store: &SystemdStore) -> String {
    match store.health() {
        Health::Failing(why) => why,
        Health::Working => String::new(),
    }
}

#[test]
fn more_than_the_store_takes_is_not_sent() {
    let (_root, manager, store) = opened("9");
    manager.set_nonblocking(true).unwrap();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let three = || SlotDescriptors::from_parts([(); 3].map(|()| Some(one.as_fd())));
    for number in [0, 1] {
        store.put_slot(slot(number), &three()).unwrap();
    }
    said(&manager);
    // It takes nine, of which one is left to a listener.
    let refused = store.put_slot(slot(2), &three());
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(said(&manager), Vec::<String>::new());
    assert!(!store.holds_slot(slot(2)) && store.holds_slot(slot(1)));
    let why = why_failing(&store);
    assert!(why.contains("FileDescriptorStoreMax="), "{why}");

    let name = |number: u32| GlobalName::new(format!("listener.{number}")).unwrap();
    for number in 0..3 {
        store.put_global(&name(number), one.as_fd()).unwrap();
    }
    said(&manager);
    let refused = store.put_global(&name(3), one.as_fd());
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(said(&manager), Vec::<String>::new());
    store.put_global(&name(2), one.as_fd()).unwrap();
    for number in 0..4 {
        store.drop_global(&name(number)).unwrap();
    }
    said(&manager);

    // One that is put anew has the place that it had.
    store.put_slot(slot(1), &three()).unwrap();
    said(&manager);
    store.drop_slot(slot(0)).unwrap();
    // The one that was refused ends with this process all the same, until it is put or has ended.
    assert_ne!(store.health(), Health::Working);
    store.put_slot(slot(2), &three()).unwrap();
    assert!(store.holds_slot(slot(2)));
    assert_eq!(store.health(), Health::Working);
    assert!(store.put_slot(slot(3), &three()).is_err());
    assert_ne!(store.health(), Health::Working);
    store.drop_slot(slot(3)).unwrap();
    assert_eq!(store.health(), Health::Working);
}

#[test]
fn what_was_passed_counts_and_goes_by_the_names_that_it_has() {
    let (_root, manager, store) = opened("9");
    manager.set_nonblocking(true).unwrap();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let three = || SlotDescriptors::from_parts([(); 3].map(|()| Some(one.as_fd())));
    let former = slot_names(slot(4), Naming::Former);
    let passed = former.iter().map(String::as_str).chain(["http"]);
    *lock(&store.contents) = Contents::new(9, passed);
    assert!(store.holds_slot(slot(4)));
    store.put_slot(slot(5), &three()).unwrap();
    assert!(store.put_slot(slot(6), &three()).is_err());
    said(&manager);
    store.put_slot(slot(4), &three()).unwrap();
    let expected = [
        named("FDSTOREREMOVE", slot(4), Naming::Former),
        of_slot("FDSTOREREMOVE", slot(4)),
        of_slot("FDSTORE", slot(4)),
    ];
    assert_eq!(said(&manager), expected.concat());
    store.drop_slot(slot(4)).unwrap();
    assert_eq!(said(&manager), of_slot("FDSTOREREMOVE", slot(4)));
}

/// What Linux takes as one string of an environment.
const VARIABLE_BYTES_MAX: usize = 131_072;

/// Stores names as systemd does, until it is told something else. How long its variable was at
/// most, in bytes, and how many names there are at the end.
fn store_names(manager: &UnixDatagram) -> (usize, usize) {
    let mut names = BTreeSet::new();
    // Behind each name comes a colon, or the zero at the end.
    let mut length = "LISTEN_FDNAMES=".len();
    let mut longest = length;
    let mut bytes = [0; 512];
    loop {
        let count = manager.recv(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..count]).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        let Some(name) = name else {
            return (longest, names.len());
        };
        if !text.starts_with("FDSTOREREMOVE=1") {
            assert!(names.insert(name.to_owned()), "{name} twice");
            length += name.len() + 1;
            longest = longest.max(length);
        } else if names.remove(name) {
            length -= name.len() + 1;
        }
    }
}

fn tell_end(path: &Path) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"END", path).unwrap();
}

#[test]
fn the_names_of_all_that_is_stored_fit_one_variable() {
    let (root, manager, store) = opened("65536");
    let manager = std::thread::spawn(move || store_names(&manager));
    let (one, _other) = UnixDatagram::pair().unwrap();
    let three = || SlotDescriptors::from_parts([(); 3].map(|()| Some(one.as_fd())));
    let slots = || (16_384..KEEPER_SLOTS_MAX).map(slot);
    // Some may be late: the manager is a thread that shares a machine.
    let full = |slot: &Slot| {
        let result = store.put_slot(*slot, &three());
        matches!(result, Err(StoreError::Full(_)))
    };
    let full = slots().find(full).unwrap();
    assert!(full.number() > 18_883, "{full:?}");
    assert!(!store.holds_slot(full));
    let why = why_failing(&store);
    assert!(why.contains("names of 8"), "{why}");

    for slot in slots().take(2) {
        while store.holds_slot(slot) {
            store.drop_slot(slot).ok();
        }
    }
    // There is room, and still one that ends with this process.
    assert_ne!(store.health(), Health::Working);
    assert!((0..10).any(|_| store.put_slot(full, &three()).is_ok()));
    assert!(store.holds_slot(full));
    assert_eq!(store.health(), Health::Working);
    tell_end(&root.path().join("notify"));
    let (longest, names) = manager.join().unwrap();
    assert!(longest <= VARIABLE_BYTES_MAX, "{longest}");
    assert!(names > 3 * 8_000, "{names}");
}
