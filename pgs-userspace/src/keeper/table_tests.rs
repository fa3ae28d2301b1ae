//! Tests of the session table.

use proptest::prelude::*;

use super::*;

fn record() -> impl Strategy<Value = Record> {
    let client = prop_oneof![
        Just(None),
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|address| Some(address.into())),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(address, port)| Some(SocketAddr::new(
            Ipv6Addr::from(address).into(),
            port
        ))),
    ];
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u8>());
    let key = prop::collection::vec(any::<u8>(), 0..=CANCEL_KEY_BYTES_MAX);
    let texts = ("[a-z0-9_]{1,63}", "[a-zé€]{0,20}", ".{0,15}");
    (
        client,
        numbers,
        key,
        texts,
        prop::option::of((1u32.., any::<u64>())),
    )
        .prop_map(
            |(client, (session, begun, backend, path), cancel_key, texts, owner)| Record {
                owner: owner.map(|(process_id, started_ticks)| Owner {
                    process_id,
                    started_ticks,
                }),
                session,
                begun_microseconds: begun,
                backend_process_id: backend,
                path,
                client,
                cancel_key,
                tenant: texts.0,
                user: texts.1,
                database: texts.2,
            },
        )
}

proptest! {
    #[test]
    fn a_record_survives_the_table(record in record(), to_backend: u64, to_client: u64) {
        let table = SessionTable::create().unwrap();
        let slot = Slot::new(KEEPER_SLOTS_MAX - 1).unwrap();
        let totals = Totals { to_backend, to_client };
        table.write(slot, &record, totals).unwrap();
        let kept = table.descriptor().try_clone_to_owned().unwrap();
        let again = SessionTable::open(kept).unwrap().unwrap();
        let entry = again.read(slot).unwrap();
        prop_assert_eq!(entry, Entry::Session(Box::new(record), Some(totals)));
    }

    #[test]
    fn a_record_that_was_half_written_is_invalid(
        before in record(),
        after in record(),
        written in 1..CHECKED.end,
    ) {
        prop_assume!(before != after);
        let table = SessionTable::create().unwrap();
        let slot = Slot::new(7).unwrap();
        let mut torn = before.encode();
        let after_bytes = after.encode();
        torn[..written].copy_from_slice(&after_bytes[..written]);
        table.file.write_all_at(&torn, offset(7)).unwrap();
        let entry = table.read(slot).unwrap();
        // What differs may lie wholly before, or wholly behind, where the write stopped.
        let whole = torn[..CHECKED.end] == after_bytes[..CHECKED.end];
        prop_assert_eq!(entry == Entry::Invalid, !whole, "{:?}", entry);
    }
}

fn example() -> Record {
    Record {
        owner: None,
        session: 9,
        begun_microseconds: 1,
        backend_process_id: 77,
        path: 2,
        client: None,
        cancel_key: vec![1, 2, 3, 4],
        tenant: "acme".into(),
        user: "u".into(),
        database: "d".into(),
    }
}

#[test]
fn a_cleared_slot_is_empty_and_keeps_no_key() {
    let table = SessionTable::create().unwrap();
    let slot = Slot::new(3).unwrap();
    assert_eq!(table.read(slot).unwrap(), Entry::Empty);
    table.write(slot, &example(), Totals::default()).unwrap();
    table.clear(slot).unwrap();
    assert_eq!(table.read(slot).unwrap(), Entry::Empty);
    let mut bytes = [1; TABLE_RECORD_BYTES];
    table.file.read_exact_at(&mut bytes, offset(3)).unwrap();
    assert_eq!(bytes, [0; TABLE_RECORD_BYTES]);
}

#[test]
fn totals_that_were_half_written_are_none_and_spoil_nothing_else() {
    let table = SessionTable::create().unwrap();
    let slot = Slot::new(3).unwrap();
    let totals = Totals {
        to_backend: 5,
        to_client: 6,
    };
    table.write(slot, &example(), Totals::default()).unwrap();
    table.write_totals(slot, totals).unwrap();
    let session = Box::new(example());
    assert_eq!(
        table.read(slot).unwrap(),
        Entry::Session(session, Some(totals))
    );
    let at = offset(3) + TOTALS_OFFSET as u64;
    table.file.write_all_at(&[9; 8], at).unwrap();
    let session = Box::new(example());
    assert_eq!(table.read(slot).unwrap(), Entry::Session(session, None));
}

#[test]
fn its_size_is_sealed_and_only_touched_pages_take_memory() {
    use std::os::unix::fs::MetadataExt as _;
    let table = SessionTable::create().unwrap();
    assert!(table.file.set_len(0).is_err());
    assert!(table.file.set_len(u64::from(u32::MAX)).is_err());
    let page = 4_096;
    let allocated = |table: &SessionTable| table.file.metadata().unwrap().blocks() * 512;
    assert_eq!(allocated(&table), page);
    let slot = Slot::new(KEEPER_SLOTS_MAX - 1).unwrap();
    table.write(slot, &example(), Totals::default()).unwrap();
    assert_eq!(allocated(&table), 2 * page);
}

#[test]
fn names_are_cut_between_two_characters() {
    let table = SessionTable::create().unwrap();
    let slot = Slot::new(1).unwrap();
    let record = Record {
        user: format!("{}€", "x".repeat(TABLE_NAME_BYTES_MAX - 1)),
        ..example()
    };
    table.write(slot, &record, Totals::default()).unwrap();
    let Entry::Session(found, _) = table.read(slot).unwrap() else {
        panic!("no session");
    };
    assert_eq!(found.user, "x".repeat(TABLE_NAME_BYTES_MAX - 1));
}

#[test]
fn another_version_is_not_opened() {
    let table = SessionTable::create().unwrap();
    table.file.write_all_at(&[2], 8).unwrap();
    let kept = table.descriptor().try_clone_to_owned().unwrap();
    assert!(SessionTable::open(kept).unwrap().is_none());
    let other: OwnedFd = File::open("/dev/null").unwrap().into();
    assert!(SessionTable::open(other).unwrap().is_none());
}

#[test]
fn no_key_is_ever_printed() {
    let record = Record {
        cancel_key: vec![211; 32],
        ..example()
    };
    assert!(!format!("{record:?}").contains("211"));
}

fn owner_of(process_id: u32) -> Owner {
    Owner {
        process_id,
        started_ticks: 3,
    }
}

#[test]
fn what_has_an_owner_is_found_and_can_be_asked_for() {
    let table = SessionTable::create().unwrap();
    let session = |session, owner: Option<u32>| Record {
        owner: owner.map(owner_of),
        session,
        begun_microseconds: 1,
        backend_process_id: 2,
        path: 0,
        client: None,
        cancel_key: vec![1, 2, 3, 4],
        tenant: "acme".into(),
        user: "acme".into(),
        database: "acme".into(),
    };
    let totals = Totals {
        to_backend: 5,
        to_client: 6,
    };
    let slots = [0, 63, 64, KEEPER_SLOTS_MAX - 1].map(|number| Slot::new(number).unwrap());
    for (slot, owner) in slots.into_iter().zip([Some(7), None, Some(8), Some(7)]) {
        let number = u64::from(slot.number());
        table.write(slot, &session(number, owner), totals).unwrap();
    }
    let owned = table.owned().unwrap();
    let found: Vec<_> = owned
        .iter()
        .map(|(slot, record, totals)| (*slot, record.owner, *totals))
        .collect();
    let all = Some(totals);
    assert_eq!(
        found,
        [
            (slots[0], Some(owner_of(7)), all),
            (slots[2], Some(owner_of(8)), all),
            (slots[3], Some(owner_of(7)), all)
        ]
    );

    let before = table.asked().unwrap();
    table.ask_for_end(slots[2]).unwrap();
    assert_ne!(table.asked().unwrap(), before);
    let asked = slots.map(|slot| table.is_asked_for_end(slot).unwrap());
    assert_eq!(asked, [false, false, true, false]);
    // How far it is can be written all the same, and a new session at the slot is not asked for.
    table.write_totals(slots[2], Totals::default()).unwrap();
    assert!(table.is_asked_for_end(slots[2]).unwrap());
    assert!(matches!(
        table.read(slots[2]),
        Ok(Entry::Session(_, Some(_)))
    ));
    table.clear(slots[2]).unwrap();
    assert!(!table.is_asked_for_end(slots[2]).unwrap());
}

#[test]
fn a_record_is_cleared_by_whoever_has_its_session() {
    let table = SessionTable::create().unwrap();
    let slot = Slot::new(9).unwrap();
    let cleared = |session, owner: Option<u32>| {
        let record = Record {
            owner: owner.map(owner_of),
            session,
            begun_microseconds: 1,
            backend_process_id: 2,
            path: 0,
            client: None,
            cancel_key: Vec::new(),
            tenant: "acme".into(),
            user: "acme".into(),
            database: "acme".into(),
        };
        table.write(slot, &record, Totals::default()).unwrap();
        table.clear_of(slot, owner_of(7), 5).unwrap();
        table.read(slot).unwrap() == Entry::Empty
    };
    assert!(cleared(5, None) && cleared(5, Some(7)));
    // The next router's, of which one session has the place since.
    assert!(!cleared(6, None) && !cleared(5, Some(8)) && !cleared(6, Some(7)));
}
