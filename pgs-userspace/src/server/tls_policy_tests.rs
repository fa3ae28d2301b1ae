//! Each policy against each way of being connected. What is in a certificate is tested where it is
//! read.

use super::*;
use crate::tenant::id::TenantId;
use crate::tenant::settings::TenantSettings;
use crate::tls::self_signed;

const IN_THE_CLEAR: Shown<'static> = Shown {
    encrypted: false,
    certificates: None,
    user: b"acme",
};

const ENCRYPTED: Shown<'static> = Shown {
    encrypted: true,
    ..IN_THE_CLEAR
};

fn route(settings: TenantSettings) -> Route {
    Route {
        tenant: TenantId::parse("acme").unwrap(),
        socket_directory: "/nonexistent".into(),
        settings,
    }
}

fn verdict(settings: TenantSettings, shown: Shown<'_>) -> Result<(), Refusal> {
    check(&route(settings), &ClientAuthorities::default(), shown)
}

#[test]
fn what_each_policy_lets_in() {
    let with = |tls| TenantSettings {
        tls,
        ..TenantSettings::default()
    };
    let cases = [
        (TlsPolicy::Optional, IN_THE_CLEAR, Ok(())),
        (TlsPolicy::Optional, ENCRYPTED, Ok(())),
        (TlsPolicy::Required, IN_THE_CLEAR, Err(Refusal::TlsRequired)),
        (TlsPolicy::Required, ENCRYPTED, Ok(())),
        (
            TlsPolicy::Passthrough,
            IN_THE_CLEAR,
            Err(Refusal::PassthroughOnly),
        ),
        (
            TlsPolicy::Passthrough,
            ENCRYPTED,
            Err(Refusal::PassthroughOnly),
        ),
    ];
    for (tls, shown, expected) in cases {
        assert_eq!(verdict(with(tls), shown), expected, "{tls:?} {shown:?}");
    }
}

#[test]
fn a_wish_that_cannot_be_checked_lets_nobody_in() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("ca.pem");
    let made = self_signed::generate(&["a.test".to_owned()]).unwrap();
    let with = |client_certificates, client_ca| TenantSettings {
        client_certificates,
        client_ca,
        ..TenantSettings::default()
    };
    let foreign = [CertificateDer::from(b"nonsense".to_vec())];
    let showing = Shown {
        certificates: Some(&foreign),
        ..ENCRYPTED
    };
    let required = Err(Refusal::ClientCertificateRequired);
    for (wanted, bare, shown) in [
        (ClientCertificates::Off, Ok(()), Ok(())),
        (ClientCertificates::Optional, Ok(()), required.clone()),
        (
            ClientCertificates::Required,
            required.clone(),
            required.clone(),
        ),
        (
            ClientCertificates::VerifyUser,
            required.clone(),
            required.clone(),
        ),
    ] {
        std::fs::write(&file, &made.certificate_pem).unwrap();
        let settings = with(wanted, Some(file.clone()));
        assert_eq!(verdict(settings.clone(), ENCRYPTED), bare, "{wanted:?}");
        assert_eq!(verdict(settings.clone(), IN_THE_CLEAR), bare, "{wanted:?}");
        assert_eq!(verdict(settings.clone(), showing), shown, "{wanted:?}");
        // The same where there is nothing to check it by.
        std::fs::remove_file(&file).unwrap();
        let fault = |checked: &Result<(), Refusal>| match checked {
            Ok(()) => Ok(()),
            Err(_) => Err(Refusal::RouterFault),
        };
        for settings in [settings, with(wanted, None)] {
            assert_eq!(verdict(settings.clone(), ENCRYPTED), fault(&bare));
            assert_eq!(verdict(settings, showing), fault(&shown), "{wanted:?}");
        }
    }
}
