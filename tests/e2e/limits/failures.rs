//! Who fails to log in too often has to wait.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Login;

use super::HERE;
use super::THERE;
use super::ensure_state;
use super::log_in;
use super::refused;

const CONFIGURATION: &str = "[limits]\n\
                             login_failures_max = 3\n\
                             login_backoff_min = '10s'\n\
                             login_backoff_max = '10s'\n";

pub(super) fn have_to_wait(stage: &Stage) -> anyhow::Result<()> {
    let router = stage
        .installation()?
        .configured_router("failures", CONFIGURATION)?;
    let alpha = stage.alpha()?;
    let wrong = Login {
        password: "wrong".into(),
        ..alpha.clone()
    };
    let mut session = log_in(&router, HERE, alpha)?;
    for _ in 0..3 {
        // The connection is closed as soon as the answer is there: that is no way around it.
        ensure_found_out(&refused(&router, HERE, &wrong)?)?;
    }
    let begin = Instant::now();
    for login in [alpha, &wrong] {
        let waits = refused(&router, HERE, login)?;
        ensure_state(&waits, "28000", "too many failed logins")?;
        let detail = waits.field(b'D').context("no detail")?;
        let seconds = detail
            .split(' ')
            .rev()
            .nth(1)
            .and_then(|word| word.parse().ok());
        ensure!(
            seconds.is_some_and(|wait| (1..=10).contains(&wait)),
            "{detail}"
        );
    }
    log_in(&router, THERE, alpha).context("another address pays for it")?;
    log_in(&router, HERE, stage.beta()?).context("another tenant pays for it")?;
    ensure!(session.query_value("select 1")? == "1", "a session was hit");
    process::eventually("the wait ends", Duration::from_secs(40), || {
        Ok(log_in(&router, HERE, alpha).ok())
    })?;
    ensure!(begin.elapsed() > Duration::from_secs(1), "too soon");
    // A success takes nothing back but its own charge: the next failure has to wait again.
    ensure_found_out(&refused(&router, HERE, &wrong)?)?;
    ensure_state(&refused(&router, HERE, alpha)?, "28000", "too many failed")
}

fn ensure_found_out(message: &pgs_tests::wire::Message) -> anyhow::Result<()> {
    let state = message.sqlstate();
    ensure!(state.as_deref() == Some("28P01"), "{message:?}");
    Ok(())
}
