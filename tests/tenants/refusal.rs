//! Bad input and bad surroundings: a clear error, an exit code of its own kind, nothing left.

use anyhow::Result;
use anyhow::ensure;
use pgs_tests::tenants::Installation;
use pgs_tests::tenants::docker;
use serde_json::Value;

#[test]
fn each_kind_of_failure_has_its_exit_code_and_a_way_out() -> Result<()> {
    let Some(pgs) = Installation::for_test("each_kind_of_failure_has_its_exit_code") else {
        return Ok(());
    };
    let cases: [(&[&str], i32); 18] = [
        (&["create", "Acme"], 5),
        (&["create", "a-b"], 5),
        (&["create", "postgres"], 5),
        (&["create", "select"], 5),
        (&["create", "acme", "--image", "pgs.invalid/nothing:0"], 8),
        (&["create", "acme", "--network", "nowhere_at_all"], 2),
        (&["create", "acme", "--memory", "1m"], 2),
        (&["create", "acme", "--init", "/nonexistent.sql"], 2),
        (&["create", "acme", "--password", ""], 2),
        (&["start", "acme"], 3),
        (&["password", "acme"], 3),
        (&["remove", "acme", "--yes"], 3),
        (&["enable", "acme"], 3),
        (&["sessions"], 12),
        (&["create", "acme", "--password-file", "/nonexistent"], 2),
        (
            &[
                "tls",
                "set",
                "--default",
                "--certificate",
                "/no",
                "--key",
                "/no",
            ],
            2,
        ),
        (&["config", "check", "/nonexistent.toml"], 18),
        (
            &[
                "serve",
                "--tls-required",
                "--path",
                "relay",
                "--keeper",
                "off",
            ],
            18,
        ),
    ];
    for (arguments, expected) in cases {
        let outcome = pgs.pgs(arguments)?;
        ensure!(outcome.code == expected, "{arguments:?}: {outcome:?}");
        ensure!(
            outcome.stdout.is_empty() && outcome.stderr.contains("error: "),
            "{outcome:?}"
        );
    }
    ensure!(pgs.list()?.is_empty() && pgs.in_docker()?.is_empty());
    Ok(())
}

#[test]
fn what_docker_cannot_do_is_the_commands_fault_and_leaves_nothing() -> Result<()> {
    let Some(pgs) = Installation::for_test("what_docker_cannot_do_is_the_commands_fault") else {
        return Ok(());
    };
    // What Docker says of each; what can be done about it is pgs's to say.
    let cases = [
        (["--cpus", "100000"], "CPUs"),
        (
            ["--image", "pgs/postgres:18:18"],
            "invalid reference format",
        ),
        (["--image", ""], "no name of an image"),
        (["--image", "pgs//postgres:18"], "no name of an image"),
        // Docker would find it, and could make nothing of it.
        (["--image", "x/../pgs/postgres:18"], "no name of an image"),
    ];
    for (option, says) in cases {
        let outcome = pgs.pgs(&["create", "acme", option[0], option[1], "--json"])?;
        // Before it stands what was being done.
        let last = outcome.stderr.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last)?;
        let error = &error["error"];
        ensure!(
            outcome.code == 2 && error["kind"] == "usage",
            "{option:?}: {outcome:?}"
        );
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        ensure!(text("message").contains(says), "{option:?}: {outcome:?}");
        ensure!(text("hint").contains(option[0]), "{option:?}: {outcome:?}");
        ensure!(pgs.list()?.is_empty() && pgs.in_docker()?.is_empty());
    }
    Ok(())
}

#[test]
fn a_second_creation_changes_nothing() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_second_creation_changes_nothing") else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    let before = (pgs.list()?[0]["created_at"].clone(), pgs.in_docker()?);
    let again = pgs.pgs(&["create", "acme", "--json"])?;
    let error: Value = serde_json::from_str(&again.stderr)?;
    ensure!(
        again.code == 4 && error["error"]["kind"] == "exists",
        "{again:?}"
    );
    ensure!(before == (pgs.list()?[0]["created_at"].clone(), pgs.in_docker()?));
    // Without a terminal nobody can have said yes.
    ensure!(pgs.pgs(&["remove", "acme"])?.code == 15);
    // `serve` does not run: the registry alone is told, and that is enough.
    ensure!(pgs.pgs(&["enable", "acme"])?.code == 0);
    ensure!(pgs.list()?[0]["access"] == "enabled");
    ensure!(pgs.pgs(&["disable-access", "acme"])?.code == 0);
    ensure!(pgs.list()?[0]["access"] == "disabled");
    Ok(())
}

/// What `docker inspect` is to say of a container that nobody touches.
const STATE: &str = "{{.State.Status}} {{.State.StartedAt}} {{.State.FinishedAt}}";

#[test]
fn a_configuration_that_cannot_be_used_stops_no_server() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_configuration_that_cannot_be_used_stops_no_server")
    else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    let container = pgs.container("acme")?;
    let since = || docker(&["inspect", "--format", STATE, &container]);
    let before = since()?;
    let file = pgs.state_directory().join("mistaken.toml");
    std::fs::write(&file, "[limits]\nsesions_max = 3\n")?;
    let file = file.to_string_lossy().into_owned();
    for arguments in [&["restart"][..], &["restart", "acme"]] {
        let refused = pgs.pgs(&[&["--config", &file], arguments].concat())?;
        ensure!(
            refused.code == 18 && refused.stderr.contains("sessions_max"),
            "{refused:?}"
        );
        ensure!(since()? == before, "{arguments:?}: it was stopped");
    }
    Ok(())
}

#[test]
fn without_docker_the_registry_still_answers() -> Result<()> {
    let Some(pgs) = Installation::for_test("without_docker_the_registry_still_answers") else {
        return Ok(());
    };
    pgs.create("acme", &[])?;
    let gone = |arguments: &[&str]| -> Result<_> {
        let mut command = pgs.command(arguments)?;
        let command = command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        Ok(pgs_tests::tenants::outcome(&command.output()?))
    };
    let listed = gone(&["list"])?;
    ensure!(
        listed.code == 7 && listed.stdout.contains("unknown"),
        "{listed:?}"
    );
    let refused = gone(&["create", "bob"])?;
    ensure!(
        refused.code == 7 && refused.stderr.contains("hint: "),
        "{refused:?}"
    );
    ensure!(
        gone(&["enable", "acme"])?.code == 0,
        "access needs no Docker"
    );
    ensure!(pgs.list()?.len() == 1);
    Ok(())
}

#[test]
fn a_state_directory_too_deep_for_a_socket_is_refused() -> Result<()> {
    let Some(pgs) = Installation::for_test("a_state_directory_too_deep_for_a_socket_is_refused")
    else {
        return Ok(());
    };
    let deep = pgs.state_directory().join("x".repeat(100));
    let refused = pgs.pgs(&["create", "acme", "--state-dir", &deep.to_string_lossy()])?;
    ensure!(
        refused.code == 2 && refused.stderr.contains("Unix socket"),
        "{refused:?}"
    );
    ensure!(!deep.exists());
    Ok(())
}
