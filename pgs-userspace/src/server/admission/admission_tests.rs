//! The limits together, as a connection meets them.

use std::net::Ipv6Addr;

use super::*;

fn admission(change: impl FnOnce(&mut Limits)) -> Arc<Admission> {
    let mut limits = Limits::default();
    change(&mut limits);
    Arc::new(Admission::new(&limits, Budget::ample()))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

#[test]
fn one_client_is_an_ipv4_address_or_half_an_ipv6_one() {
    let same = |a, b| prefix(address(a)) == prefix(address(b));
    assert!(!same("192.0.2.1", "192.0.2.2"));
    assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    assert!(same("2001:db8::1", "2001:db8::ffff:2"));
    assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    assert_eq!(
        Ipv6Addr::from_bits(prefix(address("2001:db8::1"))),
        address("2001:db8::")
    );
}

#[test]
fn an_address_that_connects_too_often_keeps_no_other_out() {
    let admission = admission(|limits| {
        limits.address_connection_rate_per_minute = Some(1);
        limits.address_connection_burst = 3;
    });
    let arrive = |from| admission.arrive(address(from)).map(drop);
    for _ in 0..3 {
        assert_eq!(arrive("192.0.2.1"), Ok(()));
    }
    assert_eq!(arrive("192.0.2.1"), Err(Refusal::TooManyFromAddress));
    assert_eq!(arrive("192.0.2.2"), Ok(()));
}

#[test]
fn a_connection_that_cancelled_something_is_not_counted() {
    let admission = admission(|limits| {
        limits.address_connection_rate_per_minute = Some(1);
        limits.address_connection_burst = 1;
    });
    let client = address("192.0.2.1");
    for _ in 0..3 {
        assert!(admission.arrive(client).is_ok());
        assert!(admission.arrive(client).is_err());
        admission.was_a_cancel(client);
    }
}

#[test]
fn an_address_with_too_many_arrivals_waits_for_one_to_end() {
    let admission = admission(|limits| limits.address_arrivals_max = Some(1));
    let arrive = || admission.arrive(address("192.0.2.1"));
    let first = arrive().unwrap();
    assert!(first.is_some());
    assert_eq!(arrive().map(drop), Err(Refusal::TooManyFromAddress));
    drop(first);
    assert!(arrive().is_ok());
}

#[test]
fn who_gets_no_place_takes_nothing_from_the_rate() {
    let admission = admission(|limits| {
        limits.address_arrivals_max = Some(1);
        limits.address_connection_rate_per_minute = Some(1);
        limits.address_connection_burst = 2;
    });
    let arrive = || admission.arrive(address("192.0.2.1"));
    let first = arrive().unwrap();
    for _ in 0..3 {
        assert!(arrive().is_err());
    }
    drop(first);
    assert!(arrive().is_ok());
    assert!(arrive().is_err(), "the rate holds");
}

#[test]
fn few_connections_of_an_address_beyond_its_bounds_are_looked_at() {
    let admission = admission(|_| ());
    let look = |from| admission.look(address(from));
    let looks: Vec<_> = std::iter::from_fn(|| look("192.0.2.1")).collect();
    assert_eq!(looks.len() as u32, CANCEL_LOOKS_ADDRESS_MAX);
    assert!(look("192.0.2.2").is_some());
    drop(looks);
    assert!(look("192.0.2.1").is_some());
}

#[tokio::test]
async fn as_many_logins_wait_as_may_each_until_its_own_time() {
    let mut limits = Limits {
        address_logins_max: Some(1),
        ..Limits::default()
    };
    let budget = Budget {
        waiting: 2,
        ..Budget::ample()
    };
    let admission = Admission::new(&limits, budget);
    let (client, tenant) = (address("192.0.2.1"), tenant("a"));
    let held = admission.login_place(client, &tenant).unwrap();
    let until = tokio::time::Instant::now() + Duration::from_millis(50);
    let [first, second] = [admission.wait().unwrap(), admission.wait().unwrap()];
    let refused = Refusal::TooManyLoginsUnderWay;
    assert_eq!(admission.wait().err(), Some(refused.clone()));
    let told = first.login_place(client, &tenant, until).await;
    assert_eq!(told.err(), Some(refused));
    assert!(tokio::time::Instant::now() >= until);
    drop((first, held));
    let place = second.login_place(client, &tenant, until).await;
    assert!(place.unwrap().is_some(), "there is one, late as it is");
    drop(second);
    assert!(!admission.anybody_waits());
    limits.address_logins_max = None;
    admission.set_limits(&limits, budget);
    assert!(admission.login_place(client, &tenant).unwrap().is_none());
}

#[test]
fn cancels_have_a_rate_of_their_own() {
    let admission = admission(|limits| {
        limits.address_cancel_rate_per_minute = Some(1);
        limits.address_cancel_burst = 2;
    });
    let client = address("192.0.2.1");
    let allowed = (0..5).filter(|_| admission.may_cancel(client)).count();
    assert_eq!(allowed, 2);
    assert!(admission.arrive(client).is_ok());
    assert!(admission.may_cancel(address("192.0.2.2")));
}

#[test]
fn a_tenants_rate_is_its_own() {
    let admission = admission(|_| ());
    let settings = TenantSettings {
        connection_rate_per_minute: Some(1),
        connection_burst: 2,
        ..TenantSettings::default()
    };
    let begin = |name, settings: &TenantSettings| {
        let tenant = tenant(name);
        admission
            .begin_login(address("192.0.2.1"), &tenant, settings)
            .map(drop)
    };
    assert_eq!(begin("a", &settings), Ok(()));
    assert_eq!(begin("a", &settings), Ok(()));
    let refused = Refusal::TooManyLogins { tenant: "a".into() };
    assert_eq!(begin("a", &settings), Err(refused));
    assert_eq!(begin("b", &settings), Ok(()));
    assert_eq!(
        begin("a", &TenantSettings::default()),
        Ok(()),
        "it was raised"
    );
}

#[test]
fn failures_count_for_one_address_at_one_tenant() {
    let admission = admission(|limits| limits.login_failures_max = Some(2));
    let begin = |from, name| {
        let settings = TenantSettings::default();
        admission.begin_login(address(from), &tenant(name), &settings)
    };
    for _ in 0..2 {
        begin("192.0.2.1", "a").unwrap().unwrap().failed();
    }
    let refused = begin("192.0.2.1", "a").unwrap_err();
    assert_eq!(refused, Refusal::TooManyFailedLogins { seconds: 1 });
    assert!(begin("192.0.2.2", "a").is_ok());
    assert!(begin("192.0.2.1", "b").is_ok());
}

#[test]
fn who_ends_without_having_been_found_out_is_not_charged() {
    let wait = Duration::from_millis(400);
    let admission = admission(|limits| {
        limits.login_failures_max = Some(1);
        limits.login_backoff_min = wait;
    });
    let begin = || {
        let settings = TenantSettings::default();
        admission.begin_login(address("192.0.2.1"), &tenant("a"), &settings)
    };
    begin().unwrap().unwrap().failed();
    assert!(begin().is_err());
    std::thread::sleep(wait);
    let attempt = begin().unwrap();
    assert!(
        begin().is_err(),
        "a second one while the first is under way"
    );
    drop(attempt);
    let attempt = begin().unwrap().unwrap();
    attempt.failed();
    assert!(begin().is_err());
}

#[test]
fn what_is_off_refuses_nobody() {
    let admission = admission(|limits| {
        limits.address_arrivals_max = None;
        limits.address_cancel_rate_per_minute = None;
        limits.login_failures_max = None;
    });
    let client = address("192.0.2.1");
    let settings = TenantSettings::default();
    for _ in 0..5_000 {
        assert!(admission.arrive(client).unwrap().is_none());
        assert!(admission.may_cancel(client));
        let begun = admission.begin_login(client, &tenant("a"), &settings);
        assert!(begun.unwrap().is_none());
    }
    assert_eq!(admission.forgotten(), 0);
}

#[test]
fn logins_that_are_not_seen_are_all_counted() {
    let admission = admission(|limits| {
        limits.address_unseen_login_rate_per_minute = Some(1);
        limits.address_unseen_login_burst = 3;
    });
    let begin = |from, to| {
        let place = admission.unseen_login_place(address(from), &tenant(to));
        // The session ends at once: its place is free again.
        place.map(drop)
    };
    for _ in 0..3 {
        assert_eq!(begin("192.0.2.1", "acme"), Ok(()));
    }
    let refused = Err(Refusal::TooManyUnseenLogins);
    assert_eq!(begin("192.0.2.1", "acme"), refused);
    assert_eq!(begin("192.0.2.2", "acme"), Ok(()));
    assert_eq!(begin("192.0.2.1", "other"), Ok(()));
    let seen = admission.login_place(address("192.0.2.1"), &tenant("acme"));
    assert!(seen.is_ok());
}
