//! Many sessions at once, each with pieces of random sizes in both directions.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use futures_util::future;
use pgs_tests::driver;
use pgs_tests::length::Length;
use pgs_tests::pattern;
use pgs_tests::process;
use pgs_tests::stage::Stage;
use pgs_tests::tenant::Tenant;
use pgs_tests::wire::Wire;
use rand::Rng as _;
use tokio_postgres::Client;

use super::roomy_tenant;

const LIMIT: Duration = Duration::from_secs(600);

/// For the sessions before to be gone.
const QUIET_LIMIT: Duration = Duration::from_secs(60);

/// Pieces of each session.
const ROUNDS: u64 = 6;

/// Most that the pieces of all but the large sessions take at a time, and most of one piece. Both
/// directions and the server have a copy of each.
const ALL_BYTES_MAX: usize = 256 << 20;
const PIECE_BYTES_MAX: usize = 64 << 20;
/// So many sessions have pieces up to that size, however many there are beside them.
const LARGE_SESSIONS: u64 = 2;

pub(super) fn with_hashes(stage: &Stage) -> anyhow::Result<()> {
    let counts = Length::of_this_run()?.pick(&[1, 40][..], &[1, 100, 1_000]);
    let most = counts.iter().copied().max().unwrap_or_default();
    let tenant = roomy_tenant(stage, "hashed", most)?;
    let address = stage.router()?.address();
    for count in counts {
        until_nobody_is_connected(stage, &tenant)?;
        driver::block_on(LIMIT, async {
            let connecting = (0..*count).map(|_| driver::connect(address, tenant.login()));
            let sessions = future::try_join_all(connecting).await?;
            let share = (ALL_BYTES_MAX / count).min(PIECE_BYTES_MAX);
            let working = sessions
                .iter()
                .zip(0_u64..)
                .map(|(session, number)| async move {
                    let is_large = number < LARGE_SESSIONS;
                    let most = if is_large { PIECE_BYTES_MAX } else { share };
                    for round in 0..ROUNDS {
                        let seed = number * ROUNDS + round;
                        there_and_back(&session.client, seed, size(most))
                            .await
                            .with_context(|| format!("session {number} of {count}"))?;
                    }
                    anyhow::Ok(())
                });
            future::try_join_all(working).await.map(drop)
        })?;
    }
    Ok(())
}

/// Sessions end when their clients are gone already, and backends after that; until then both count
/// among those of which there may be so many.
fn until_nobody_is_connected(stage: &Stage, tenant: &Tenant<'_>) -> anyhow::Result<()> {
    let mut direct = Wire::connect_unix(&tenant.socket())?;
    direct.log_in(tenant.login())?;
    let others = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
                  and pid <> pg_backend_pid()";
    process::eventually("nobody is connected", QUIET_LIMIT, || {
        let sessions = stage.router()?.sessions(tenant.id())?.len();
        let backends = direct.query_value(others)?;
        Ok((sessions == 0 && backends == "0").then_some(()))
    })
}

/// Every order of magnitude as often as another.
fn size(most: usize) -> usize {
    let exponent = rand::rng().random_range(0.0..(most as f64).log2());
    (exponent.exp2() as usize).clamp(1, most)
}

async fn there_and_back(client: &Client, seed: u64, size: usize) -> anyhow::Result<()> {
    let sent = pattern::bytes(seed, size);
    let sql = "select encode(sha256($1::bytea), 'hex'), $1::bytea";
    let row = client.query_one(sql, &[&sent]).await?;
    let arrived: &str = row.get(0);
    ensure!(
        arrived == pattern::sha256(&sent),
        "{size} bytes arrived changed"
    );
    ensure!(
        row.get::<_, &[u8]>(1) == sent,
        "{size} bytes came back changed"
    );
    Ok(())
}
