//! What a server sends unasked.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::driver;
use pgs_tests::stage::Stage;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[(
    "a_notification_reaches_a_session_that_waits",
    a_notification_reaches,
)];

const LIMIT: Duration = Duration::from_secs(30);

/// A notification goes out at once, not with the next query: that is what people wait for.
const DELIVERY: Duration = Duration::from_secs(2);

fn a_notification_reaches(stage: &Stage) -> anyhow::Result<()> {
    let (address, login) = (stage.router()?.address(), stage.alpha()?);
    driver::block_on(LIMIT, async {
        let mut listener = driver::connect(address, login).await?;
        let speaker = driver::connect(address, login).await?;
        listener.client.batch_execute("listen news").await?;
        for i in 0..50 {
            // Close to the 8000 bytes that a payload may have, and tiny ones between.
            let payload = format!("{i} {}", "z".repeat(if i % 2 == 0 { 7_900 } else { 0 }));
            speaker
                .client
                .execute("select pg_notify('news', $1)", &[&payload])
                .await?;
            let arrived = tokio::time::timeout(DELIVERY, listener.notifications.recv()).await;
            let arrived = arrived.with_context(|| format!("notification {i}"))?;
            let arrived = arrived.context("the listener's connection ended")?;
            ensure!(
                arrived.payload() == payload && arrived.channel() == "news",
                "at {i}"
            );
        }
        let row = listener.client.query_one("select 1", &[]).await?;
        ensure!(row.get::<_, i32>(0) == 1);
        Ok(())
    })
}
