//! A session that counts, and knows what it was promised.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::tenant::Login;
use pgs_tests::wire::Message;
use pgs_tests::wire::Wire;

use super::ground::Ground;

/// Between two transactions.
const PERIOD: Duration = Duration::from_millis(2);

/// Runs until it is asked for its count.
pub(super) struct Witness {
    stop: Arc<AtomicBool>,
    counting: JoinHandle<anyhow::Result<u64>>,
    wire: Wire,
}

impl Witness {
    pub(super) fn start(ground: &Ground<'_>) -> anyhow::Result<Self> {
        let login: &Login = ground.login();
        let mut wire = Wire::connect_tcp(ground.address())?;
        wire.log_in(login)?;
        let made = wire.query("create table witness (n bigint); insert into witness values (0)")?;
        ensure!(
            made.iter().all(|message| message.sqlstate().is_none()),
            "{made:?}"
        );
        let mut counter = Wire::connect_tcp(ground.address())?;
        counter.log_in(login)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let counting = thread::spawn(move || {
            let mut promised = 0;
            while !told.load(Ordering::Relaxed) {
                let answer = counter
                    .query("update witness set n = n + 1")
                    .with_context(|| format!("after {promised} transactions"))?;
                let failed = answer.iter().find_map(Message::sqlstate);
                ensure!(
                    failed.is_none(),
                    "after {promised} transactions: {answer:?}"
                );
                promised += 1;
                thread::sleep(PERIOD);
            }
            Ok(promised)
        });
        Ok(Self {
            stop,
            counting,
            wire,
        })
    }

    /// What the server has counted is what it said it had, neither more nor less.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let promised = self.counting.join();
        let promised = promised.map_err(|_| anyhow::anyhow!("the witness panicked"))??;
        let counted = self.wire.query_value("select n from witness")?;
        ensure!(
            counted == promised.to_string(),
            "{promised} promised, {counted} counted"
        );
        ensure!(
            promised > 100,
            "only {promised} transactions: the witness slept"
        );
        Ok(())
    }
}
