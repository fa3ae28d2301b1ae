//! What programs read: `--json` on the verbs that change something.

use std::path::Path;

use anyhow::Result;
use anyhow::ensure;
use pgs_tests::tenants::Installation;
use serde_json::Value;
use serde_json::json;

#[test]
fn verbs_that_change_a_tenant_answer_in_json() -> Result<()> {
    let Some(pgs) = Installation::for_test("verbs_that_change_a_tenant_answer_in_json") else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    let stopped = json!({ "tenants": [{ "tenant": "acme", "state": "stopped" }] });
    let ready = json!({ "tenants": [{ "tenant": "acme", "state": "ready" }] });
    let cases: [(&[&str], Value); 8] = [
        (
            &["enable", "acme"],
            json!({ "tenant": "acme", "access": "enabled" }),
        ),
        (
            &["disable", "acme"],
            json!({ "tenant": "acme", "access": "disabled", "sessions_ended": 0 }),
        ),
        (
            &["url", "acme", "--port", "5433"],
            json!({ "tenant": "acme", "url": "postgresql://acme@localhost:5433/acme" }),
        ),
        (&["stop", "acme"], stopped.clone()),
        (&["start"], ready.clone()),
        (&["restart", "--tenant", "acme"], ready),
        (&["stop"], stopped),
        (
            &["remove", "acme", "--yes"],
            json!({ "tenant": "acme", "state": "removed", "data_kept": false }),
        ),
    ];
    for (arguments, expected) in cases {
        let answer = answer(&pgs, arguments)?;
        ensure!(answer == expected, "{arguments:?}: {answer}");
    }
    ensure!(answer(&pgs, &["start"])? == json!({ "tenants": [] }));
    Ok(())
}

#[test]
fn certificates_are_installed_in_json() -> Result<()> {
    let Some(pgs) = Installation::for_test("certificates_are_installed_in_json") else {
        return Ok(());
    };
    let made = answer(&pgs, &["tls", "self-signed"])?;
    let path = made["path"].as_str().unwrap_or_default();
    ensure!(Path::new(path).exists(), "{made}");
    ensure!(
        made["names"] == json!(["localhost", "127.0.0.1", "::1"]),
        "{made}"
    );
    let key = Path::new(path).with_file_name("privkey.pem");
    let key = key.to_string_lossy();
    let pair = ["--certificate", path, "--key", &key];
    let set = answer(
        &pgs,
        &[&["tls", "set", "db.example.com"][..], &pair].concat(),
    )?;
    ensure!(set["name"] == "db.example.com", "{set}");
    ensure!(set["problem"] == "not for `db.example.com`", "{set}");
    pgs.create("acme", &[])?;
    let given = answer(
        &pgs,
        &[&["tls", "set", "--tenant", "acme"][..], &pair].concat(),
    )?;
    ensure!(
        given == json!({ "tenant": "acme", "problem": null }),
        "{given}"
    );
    Ok(())
}

#[test]
fn failures_are_told_in_json() -> Result<()> {
    let Some(pgs) = Installation::for_test("failures_are_told_in_json") else {
        return Ok(());
    };
    let nowhere = ["--certificate", "/nonexistent", "--key", "/nonexistent"];
    let for_all = [&["tls", "set", "--default"][..], &nowhere].concat();
    let cases: [(&[&str], i32, &str, &str); 11] = [
        (&["enable", "acme"], 3, "not_found", "`acme`"),
        (&["disable", "acme"], 3, "not_found", "`acme`"),
        (&["start", "acme"], 3, "not_found", "`acme`"),
        (&["stop", "acme"], 3, "not_found", "`acme`"),
        (&["restart", "acme"], 3, "not_found", "`acme`"),
        (&["url", "acme"], 3, "not_found", "`acme`"),
        (&["remove", "acme", "--yes"], 3, "not_found", "`acme`"),
        (&for_all, 2, "usage", "/nonexistent"),
        (&["config", "check", "/none"], 18, "configuration", "/none"),
        (&["list", "extra"], 2, "usage", "'extra'"),
        (&["stop", "--extra"], 2, "usage", "'--extra'"),
    ];
    for (arguments, code, kind, says) in cases {
        let outcome = pgs.pgs(&[arguments, &["--json"]].concat())?;
        let last = outcome.stderr.lines().last().unwrap_or_default();
        let error = &serde_json::from_str::<Value>(last)?["error"];
        ensure!(
            outcome.code == code && error["kind"] == kind && outcome.stdout.is_empty(),
            "{arguments:?}: {outcome:?}"
        );
        let message = error["message"].as_str().unwrap_or_default();
        ensure!(message.contains(says), "{arguments:?}: {outcome:?}");
        ensure!(!error["hint"].is_null(), "{arguments:?}: {outcome:?}");
    }
    Ok(())
}

/// What a command prints that succeeds.
fn answer(pgs: &Installation, arguments: &[&str]) -> Result<Value> {
    let outcome = pgs.pgs(&[arguments, &["--json"]].concat())?;
    ensure!(outcome.code == 0, "{arguments:?}: {outcome:?}");
    Ok(serde_json::from_str(&outcome.stdout)?)
}
