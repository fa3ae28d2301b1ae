//! What a configuration file may say, and how its mistakes are named.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn a_key_like_no_other_is_told_which_there_are() {
    let told = parse("[serve]\nx = 1\n").map(drop).unwrap_err();
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "line 2: there is no `x` in `[serve]`; there are listen, path, log_format, \
             drain_deadline"
        ]
    );
}
use crate::config::sections::TlsVersion;
use crate::datapath::PathRequest;

fn mistakes(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => panic!("no mistake in {text}"),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn an_empty_file_says_nothing() {
    let effective = parse("# nothing\n").unwrap();
    assert_eq!(effective, Effective::default());
}

#[test]
fn every_section_and_every_kind_of_value_is_read() {
    let text = r#"
        [serve]
        listen = ["127.0.0.1:5432", "[::1]:5432"]
        path = "relay"
        [limits]
        sessions_max = 1_000
        cancel_deadline = "2s"
        arrival_deadline = 20
        client_user_timeout = "off"
        [tls]
        required = true
        version_min = 1.3
        [proxy_protocol]
        trusted = ["192.0.2.0/24"]
        [tenant_defaults]
        allow = []
        idle_session_timeout = "1h"
    "#;
    let effective = parse(text).unwrap();
    let configuration = effective.configuration();
    assert_eq!(configuration.serve.listen.len(), 2);
    assert_eq!(configuration.serve.path, PathRequest::Relay);
    assert_eq!(configuration.limits.sessions_max, 1_000);
    assert_eq!(configuration.limits.cancel_deadline, Duration::from_secs(2));
    assert_eq!(
        configuration.limits.arrival_deadline,
        Duration::from_secs(20)
    );
    assert_eq!(configuration.tls.version_min, TlsVersion::Tls13);
    assert!(configuration.tls.required);
    let trusted = &configuration.proxy_protocol.trusted;
    assert!(trusted.contain([192, 0, 2, 9].into()));
    let idle = configuration.tenant_defaults.idle_session_timeout;
    assert_eq!(idle, Some(Duration::from_secs(3_600)));
    let from_file = |name: &str| {
        let rows = configuration.rows();
        let row = rows.iter().find(|row| row.name == name).unwrap();
        effective.origin(row) == Origin::File
    };
    assert!(from_file("sessions_max") && from_file("allow"));
    assert!(!from_file("arrivals_max"));
}

#[test]
fn the_example_of_the_documentation_can_be_used() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    let (_, example) = documentation.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    assert_ne!(parse(example).unwrap(), Effective::default());
}

#[test]
fn mistakes_are_named_with_their_lines_all_at_once() {
    let text = "sessions_max = 5\n[limit]\nx = 1\n[limits]\nsesions_max = 1\ntls = \"required\"\n\
                cancel_deadline = \"soon\"\n";
    assert_eq!(
        mistakes(text),
        [
            "line 1: `sessions_max` is in no section; it belongs below `[limits]`",
            "line 2: there is no section `limit`; did you mean `limits`?",
            "line 5: there is no `sesions_max` in `[limits]`; did you mean `sessions_max`?",
            "line 6: there is no `tls` in `[limits]`; it belongs below `[tenant_defaults]`",
            "line 7: `cancel_deadline`: `soon` is no time; write `500ms`, `30s`, `5min` or `2h`",
        ]
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    for text in [
        "[serve\n",
        "[serve]\npath = \n",
        "[serve]\npath = 'auto'\npath = 'relay'\n",
    ] {
        let mistakes = mistakes(text);
        assert!(mistakes[0].starts_with("line "), "{mistakes:?}");
    }
    assert_eq!(
        mistakes("serve = 1"),
        ["line 1: `serve` is a section; write `[serve]`, and its keys below"]
    );
    for (value, why) in [
        ("{ a = 1 }", "table"),
        ("[1]", "integer"),
        ("1979-05-27", "datetime"),
        ("0x10", "decimal"),
    ] {
        let mistakes = mistakes(&format!("[serve]\nlisten = {value}\n"));
        assert!(mistakes[0].contains(why), "{mistakes:?}");
    }
}

#[test]
fn values_that_contradict_each_other_are_a_mistake() {
    let text = "[limits]\nlogin_backoff_min = '2min'\nlogin_backoff_max = '1min'\n";
    assert_eq!(
        mistakes(text),
        ["[limits] `login_backoff_min` is longer than `login_backoff_max`"]
    );
    let text = "[limits]\nclient_keepalive_idle = '1500ms'\n";
    assert!(mistakes(text)[0].contains("whole seconds"));
    let text = "[tenant_defaults]\nclient_certificates = 'required'\n";
    assert!(mistakes(text)[0].contains("client_ca"));
}

#[test]
fn a_file_that_is_too_large_or_not_there_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pgs.toml");
    assert!(matches!(read(&path), Err(FileError::Unreadable { .. })));
    let mut text = "#".repeat(1024 * 1024);
    std::fs::write(&path, &text).unwrap();
    assert!(read(&path).is_ok());
    text.push('#');
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(read(&path), Err(FileError::TooLarge { .. })));
    std::fs::write(&path, "[serve]\nlisen = []\n").unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(
        error.contains("line 2") && error.contains("did you mean `listen`?"),
        "{error}"
    );
}

#[test]
fn each_installation_has_a_file_of_its_own() {
    let path = |state: &str| default_path(&Directories::new(state, "/run/x"));
    assert_eq!(path("/var/lib/pgs"), Path::new("/etc/pgs/pgs.toml"));
    assert_eq!(path("/srv/a"), Path::new("/srv/a/pgs.toml"));
}

proptest! {
    #[test]
    fn no_text_panics(
        text in "(\\[[a-z_]{0,12}\\]\n|[a-z_]{1,9} = [0-9a-z\"'\\[\\],.{} -]{0,9}\n){0,6}"
    ) {
        drop(parse(&text));
    }

    #[test]
    fn no_bytes_panic(text in ".{0,64}") {
        drop(parse(&text));
    }
}
