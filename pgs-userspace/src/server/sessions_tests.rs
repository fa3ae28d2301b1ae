//! Places of sessions, in all and of each tenant.

use super::*;

fn identity(tenant: &str) -> Identity {
    Identity {
        tenant: TenantId::parse(tenant).unwrap(),
        user: Some(tenant.into()),
        database: Some(tenant.into()),
        client: ([127, 0, 0, 1], 1).into(),
    }
}

#[test]
fn both_bounds_hold_and_a_dropped_lease_makes_room() {
    let sessions = Arc::new(Sessions::new(3));
    let two = TenantSettings {
        connections_max: 2,
        ..TenantSettings::default()
    };
    let first = sessions.begin(identity("a"), &two).unwrap();
    let _second = sessions.begin(identity("a"), &two).unwrap();
    assert!(matches!(
        sessions.begin(identity("a"), &two),
        Err(Refusal::TooManyTenantConnections { .. })
    ));
    let _third = sessions.begin(identity("b"), &two).unwrap();
    assert!(matches!(
        sessions.begin(identity("b"), &two),
        Err(Refusal::TooManyConnections)
    ));
    assert_eq!(sessions.live(), 3);
    drop(first);
    assert_eq!(sessions.live(), 2);
    assert_eq!(sessions.bounded_by_idleness(|_| true).len(), 0);
    let again = sessions.begin(identity("a"), &two).unwrap();
    assert_eq!(sessions.list(Some("a")).len(), 2);
    assert_eq!(sessions.list(None).last().unwrap().id, again.session().id);
}
