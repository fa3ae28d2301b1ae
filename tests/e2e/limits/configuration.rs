//! The configuration file, as `pgs serve` and `pgs config` read it.

use std::time::Duration;

use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::process::Finished;
use pgs_tests::stage::Stage;

use super::HERE;
use super::ensure_state;
use super::log_in;
use super::refused;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Exit code of a configuration file that cannot be used.
const UNUSABLE: i32 = 18;

pub(super) fn file(stage: &Stage) -> anyhow::Result<()> {
    let installation = stage.installation()?;
    let text = "[serve]\ndrain_deadline = 0\n[limits]\nsessions_max = 1\n\
                [tenant_defaults]\nlogin_deadline = '7s'\n";
    let router = installation.configured_router("configured", text)?;
    let file = installation.scratch("configured.toml");
    let path = file.to_string_lossy();
    ensure!(
        router.status()?["configuration_file"] == *path,
        "the status"
    );
    let first = log_in(&router, HERE, stage.alpha()?)?;
    let second = refused(&router, HERE, stage.beta()?)?;
    ensure_state(&second, "53300", "too many clients")?;
    drop(first);

    let shown = router.pgs_json(&["config", "show", "--config", &path])?;
    let origin = |name: &str| {
        let keys = shown["keys"].as_array().into_iter().flatten();
        keys.filter(|key| key["name"] == name)
            .filter_map(|key| key["origin"].as_str())
            .collect::<Vec<_>>()
    };
    ensure!(origin("sessions_max") == ["file"], "{shown}");
    ensure!(origin("arrivals_max") == ["default"], "{shown}");
    ensure!(shown["file"] == *path, "{shown}");

    let run = |arguments: &[&str]| -> anyhow::Result<Finished> {
        process::run(router.command().args(arguments), COMMAND_LIMIT)
    };
    ensure!(
        run(&["config", "check", &path])?.status.success(),
        "a good file"
    );
    std::fs::write(&file, "[limits]\nsesions_max = 1\n")?;
    for arguments in [
        &["config", "check", &path][..],
        &["config", "check", "--config", &path],
        &["serve", "--config", &path],
        &["show", "alpha", "--config", &path],
    ] {
        let ended = run(arguments)?;
        let hinted = ended.stderr.contains("line 2") && ended.stderr.contains("`sessions_max`?");
        ensure!(
            ended.status.code() == Some(UNUSABLE) && hinted,
            "{arguments:?}: {ended:?}"
        );
    }
    let nowhere = "/nonexistent/pgs.toml";
    for arguments in [
        &["serve", "--config", nowhere][..],
        &["config", "check", nowhere],
    ] {
        let ended = run(arguments)?;
        ensure!(
            ended.status.code() == Some(UNUSABLE),
            "{arguments:?}: {ended:?}"
        );
    }
    Ok(())
}
