//! Many sessions at once.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use futures_util::future;
use pgs_tests::driver;
use pgs_tests::process;
use pgs_tests::stage::Stage;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[("200_connections_at_once", connections_at_once)];

const SESSIONS: i64 = 200;
const LIMIT: Duration = Duration::from_secs(120);

fn connections_at_once(stage: &Stage) -> anyhow::Result<()> {
    let (router, login) = (stage.router()?, stage.chief()?);
    let mut wire = stage.log_in(login)?;
    wire.query(&format!(
        "alter system set max_connections = {}",
        SESSIONS + 20
    ))?;
    drop(wire);
    router.pgs(&["restart", &login.user])?;
    process::eventually("the tenant is back", LIMIT / 4, || {
        Ok(stage.log_in(login).ok())
    })?;

    driver::block_on(LIMIT, async {
        let address = router.address();
        let connecting = (0..SESSIONS).map(|_| driver::connect(address, login));
        let sessions = future::try_join_all(connecting).await?;
        for round in 0..5 {
            let answers = sessions
                .iter()
                .zip(0..)
                .map(|(session, number)| async move {
                    let sql = "select $1::int8 + $2::int8, pg_backend_pid()";
                    let row = session.client.query_one(sql, &[&number, &round]).await?;
                    ensure!(
                        row.get::<_, i64>(0) == number + round,
                        "an answer of another session"
                    );
                    anyhow::Ok(row.get::<_, i32>(1))
                });
            let mut backends = future::try_join_all(answers).await?;
            backends.sort_unstable();
            backends.dedup();
            ensure!(
                backends.len() == sessions.len(),
                "two sessions share a backend"
            );
        }
        let sql = "select count(*) from pg_stat_activity where usename = current_user";
        let count: i64 = sessions[0].client.query_one(sql, &[]).await?.get(0);
        ensure!(count >= SESSIONS, "{count} backends");
        anyhow::Ok(())
    })?;
    let listed = process::eventually("no session is left", LIMIT / 4, || {
        let sessions = router.sessions(&login.user)?;
        Ok(sessions.is_empty().then_some(sessions))
    });
    listed.map(|_| ()).context("after 200 sessions were closed")
}
