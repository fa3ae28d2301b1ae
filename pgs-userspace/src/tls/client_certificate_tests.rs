//! Who is vouched for, and who is not.

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateRevocationListParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyIdMethod;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::RevokedCertParams;
use rcgen::SerialNumber;
use time::Duration;
use time::OffsetDateTime;

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let pem = parameters.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(parameters, key);
    Authority { pem, issuer }
}

/// What a client would show; `change` makes it unusual.
fn issued(
    by: &Authority,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Vec<CertificateDer<'static>> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.serial_number = Some(SerialNumber::from(7_u64));
    change(&mut parameters);
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.signed_by(&key, &by.issuer).unwrap();
    vec![certificate.der().clone()]
}

fn plain(_: &mut CertificateParams) {}

#[test]
fn the_tenants_authority_vouches_and_nobody_elses() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let trusted = ClientAuthority::parse(ours.pem.as_bytes()).unwrap();
    assert_eq!((trusted.authorities, trusted.revocation_lists), (1, 0));
    let good = issued(&ours, "alice", plain);
    assert_eq!(trusted.verify(Some(&good)), Ok(Some("alice".to_owned())));
    let invalid = |shown: Vec<_>| {
        let refused = trusted.verify(Some(&shown)).unwrap_err();
        assert!(
            matches!(refused, ClientCertificateError::Invalid(_)),
            "{refused}"
        );
    };
    invalid(issued(&theirs, "alice", plain));
    invalid(issued(&ours, "alice", |it| {
        it.not_after = OffsetDateTime::now_utc() - Duration::HOUR;
    }));
    invalid(issued(&ours, "alice", |it| {
        it.not_before = OffsetDateTime::now_utc() + Duration::HOUR;
    }));
    // A server's certificate is no client's.
    invalid(issued(&ours, "alice", |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }));
    invalid(vec![CertificateDer::from(b"nonsense".to_vec())]);
    for nothing in [None, Some(&[][..])] {
        assert_eq!(trusted.verify(nothing), Err(ClientCertificateError::Absent));
    }
    let both = format!("{}{}", ours.pem, theirs.pem);
    let both = ClientAuthority::parse(both.as_bytes()).unwrap();
    assert!(both.verify(Some(&issued(&theirs, "bob", plain))).is_ok());
}

#[test]
fn a_certificate_is_its_users_alone() {
    let ours = authority("ours");
    let trusted = ClientAuthority::parse(ours.pem.as_bytes()).unwrap();
    let shown = issued(&ours, "alice", plain);
    assert_eq!(trusted.verify_user(Some(&shown), b"alice"), Ok(()));
    for other in [&b"bob"[..], b"Alice", b"alice\0", b"", b"ali"] {
        assert_eq!(
            trusted.verify_user(Some(&shown), other),
            Err(ClientCertificateError::OtherName(Some("alice".to_owned())))
        );
    }
    let nameless = issued(&ours, "alice", |it| {
        it.distinguished_name = rcgen::DistinguishedName::new();
    });
    assert_eq!(
        trusted.verify_user(Some(&nameless), b"alice"),
        Err(ClientCertificateError::OtherName(None))
    );
}

#[test]
fn a_revoked_certificate_is_none() {
    let ours = authority("ours");
    let now = OffsetDateTime::now_utc();
    let list = CertificateRevocationListParams {
        this_update: now - Duration::HOUR,
        next_update: now + Duration::DAY,
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7_u64),
            revocation_time: now - Duration::HOUR,
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&ours.issuer).unwrap().pem().unwrap();
    let pem = format!("{}{list}", ours.pem);
    let trusted = ClientAuthority::parse(pem.as_bytes()).unwrap();
    assert_eq!(trusted.revocation_lists, 1);
    let revoked = trusted.verify(Some(&issued(&ours, "alice", plain)));
    assert_eq!(
        revoked,
        Err(ClientCertificateError::Invalid(
            rustls::CertificateError::Revoked.into()
        ))
    );
    let other = issued(&ours, "bob", |it| {
        it.serial_number = Some(SerialNumber::from(8_u64));
    });
    assert!(trusted.verify(Some(&other)).is_ok());
}

#[test]
fn what_names_no_authority() {
    let parse = |text: &str| ClientAuthority::parse(text.as_bytes()).unwrap_err();
    assert_eq!(parse(""), ClientAuthorityError::Empty);
    assert_eq!(parse("nonsense"), ClientAuthorityError::Empty);
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        parse(damaged),
        ClientAuthorityError::Unusable { index: 1, .. }
    ));
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert_eq!(parse(cut), ClientAuthorityError::NotPem);
}
