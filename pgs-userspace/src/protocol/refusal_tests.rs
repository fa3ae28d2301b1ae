//! The table of refusals, line by line.

use std::collections::BTreeSet;

use super::*;

/// The table for the documentation.
fn markdown() -> String {
    let head = "| refusal | SQLSTATE | cause | message | hint |\n|---|---|---|---|---|\n";
    let mut table = head.to_owned();
    for refusal in Refusal::all() {
        let (name, sqlstate) = refusal.name_and_sqlstate();
        let (cause, message, hint) = (refusal.cause(), refusal.message(), refusal.hint());
        // In code, so that angle brackets are not taken for tags.
        table += &format!("| {name} | {sqlstate} | {cause} | `{message}` | {hint} |\n");
    }
    table
}

#[test]
fn every_refusal_names_what_is_wrong_and_the_way_out() {
    let mut names = BTreeSet::new();
    for refusal in Refusal::all() {
        let response = refusal.error_response();
        assert_eq!(response.severity, Severity::Fatal);
        assert!(names.insert(refusal.name()), "{} twice", refusal.name());
        let ErrorResponse { message, hint, .. } = &response;
        assert!(!message.is_empty() && !message.ends_with('.'), "{message}");
        let first = message.chars().next().unwrap();
        assert!(
            first.is_lowercase() || message.starts_with("TLS"),
            "{message}"
        );
        let hint = hint
            .as_deref()
            .unwrap_or_else(|| panic!("{message}: no hint"));
        assert!(hint.ends_with('.'), "{hint}");
        let cause = refusal.cause();
        assert!(cause.ends_with('.') && !cause.contains("  "), "{cause}");
        assert!(
            ![&message[..], hint, &cause]
                .iter()
                .any(|text| text.contains('|')),
            "would break the table"
        );
    }
}

#[test]
fn an_unknown_tenant_and_a_disabled_one_get_the_same_bytes() {
    let refusal = Refusal::NoAccess {
        user: "u".into(),
        database: "d".into(),
        address: "192.0.2.1".into(),
    };
    let bytes = refusal.encode();
    let fields: Vec<_> = ErrorResponse::fields(&bytes[5..]).collect();
    assert_eq!(fields[2], (b'C', &b"28000"[..]));
    assert_eq!(
        fields[3],
        (
            b'M',
            &b"no access for user \"u\" to database \"d\" from 192.0.2.1"[..]
        )
    );
    for (_, text) in fields {
        let text = String::from_utf8_lossy(text);
        assert!(
            !text.contains("disabled") && !text.contains("unknown"),
            "{text}"
        );
    }
}

#[test]
fn postgresqls_own_words_for_what_postgresql_refuses_too() {
    let ssl_twice = ProtocolVersion {
        major: 1234,
        minor: 5679,
    };
    let cases = [
        (
            Refusal::UnsupportedProtocol { version: ssl_twice },
            "0A000",
            "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2",
        ),
        (
            Refusal::MissingUser,
            "28000",
            "no PostgreSQL user name specified in startup packet",
        ),
        (
            Refusal::MalformedStartup,
            "08P01",
            "invalid startup packet layout: expected terminator as last byte",
        ),
        (
            Refusal::DataAfterSslRequest,
            "08P01",
            "received unencrypted data after SSL request",
        ),
        (
            Refusal::TooManyConnections,
            "53300",
            "sorry, too many clients already",
        ),
        (
            Refusal::TenantNotAccepting,
            "57P03",
            "the database system does not accept connections",
        ),
        (
            Refusal::Terminated,
            "57P01",
            "terminating connection due to administrator command",
        ),
        (
            Refusal::LoginDeadline,
            "57014",
            "canceling authentication due to timeout",
        ),
    ];
    for (refusal, sqlstate, message) in cases {
        assert_eq!(refusal.sqlstate().as_str(), sqlstate);
        assert_eq!(refusal.error_response().message, message);
    }
}

#[test]
fn a_client_of_protocol_2_is_told_in_its_own_form() {
    let refused = |major| {
        let version = ProtocolVersion { major, minor: 0 };
        Refusal::UnsupportedProtocol { version }.encode()
    };
    let expected = b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0";
    assert_eq!(refused(2), &expected[..]);
    assert_eq!(refused(4)[..4], *b"E\0\0\0");
    assert_eq!(refused(0)[..4], *b"E\0\0\0");
}

#[test]
fn the_table_has_a_line_for_each() {
    let table = markdown();
    assert_eq!(table.lines().count(), 2 + Refusal::all().count());
    let cause = "The router is about to end and takes no new sessions.";
    let message = "`the database system is shutting down`";
    assert!(table.contains(&format!("| draining | 57P03 | {cause} | {message} |")));
}

#[test]
fn the_documentation_has_the_table_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
    let document = std::fs::read_to_string(path).unwrap();
    assert!(
        document.contains(&markdown()),
        "docs/errors.md is to contain:\n{}",
        markdown()
    );
}
