//! A server's large results, between small turns: its backend leaves the verdict in them and comes
//! back after them, and every row arrives as it was sent.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;
use pgs_tests::length::Length;
use pgs_tests::router::DataPath;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Wire;
use rand::Rng as _;

use super::say;
use super::spills::listed;
use super::spills::work;

/// A row is a number of these many digits, again and again and one more each time: no ten bytes of
/// a result are like any others of it.
const DIGITS: usize = 10;
const NUMBERS_A_ROW: usize = 10_000;

/// From 4 MB to 16 MB a result.
const ROWS_MIN: usize = 40;
const ROWS_MAX: usize = 160;

/// After so many a backend that stayed out of the verdict is back in it: twice
/// `RELAPSE_SMALL_TURNS` of pgs.
const SMALL_TURNS: usize = 16;

/// Between small turns: a backend comes back only where it sleeps already when it is asked more.
const PAUSE: Duration = Duration::from_millis(2);

/// Before every other result is read. Where its client reads as fast as it sends, a backend may not
/// get ahead of the router, and stays in the verdict.
const BEFORE_READING: Duration = Duration::from_millis(20);

/// Of so many results its backend leaves the verdict in one at the least; it was every other.
const RESULTS_A_WITHDRAWAL_MAX: u64 = 12;

/// Sessions that work beside the one that is looked at.
const OTHERS: usize = 2;

pub(super) fn large_results(stage: &Stage) -> anyhow::Result<()> {
    let results = Length::of_this_run()?.pick(36, 1_000);
    let mut wire = stage.log_in(stage.alpha()?)?;
    let backend: u64 = wire.query_value("select pg_backend_pid()")?.parse()?;
    let others: Result<Vec<_>, _> = (0..OTHERS).map(|_| stage.log_in(stage.beta()?)).collect();
    fill(&mut wire)?;
    let done = AtomicBool::new(false);
    let (bytes, turns) = thread::scope(|scope| {
        let others: Vec<_> = others?
            .into_iter()
            .map(|other| scope.spawn(|| work(other, &done)))
            .collect();
        let read = read_results(&mut wire, results);
        done.store(true, Relaxed);
        let mut turns = 0;
        for other in others {
            turns += other.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        anyhow::Ok((read?, turns))
    })?;
    ensure!(turns > OTHERS, "nobody worked beside it");
    let session = listed(stage, backend)?;
    let withdrawals = session["withdrawals"].as_u64().context("no withdrawals")?;
    if stage.path() == DataPath::Relay {
        ensure!(withdrawals == 0, "{session}");
        return Ok(());
    }
    say(&format!(
        "withdrawals: {results} results of {bytes} bytes in all, {withdrawals} withdrawals, {} \
         bytes in the kernel; {turns} turns beside it",
        session["bytes_in_kernel"]
    ));
    ensure!(
        withdrawals > results as u64 / RESULTS_A_WITHDRAWAL_MAX,
        "{session}"
    );
    Ok(())
}

/// Stored as it is: a backend that has to decompress is not fast.
fn fill(wire: &mut Wire) -> anyhow::Result<()> {
    for sql in [
        "create temp table piece (number int, digits text)".to_owned(),
        "alter table piece alter digits set storage external".to_owned(),
        format!(
            "insert into piece select row, string_agg(lpad((row * {NUMBERS_A_ROW} + at)::text, \
             {DIGITS}, '0'), '' order by at) from generate_series(0, {ROWS_MAX} - 1) row, \
             generate_series(0, {NUMBERS_A_ROW} - 1) at group by row"
        ),
    ] {
        let answered = wire.query(&sql)?;
        ensure!(
            answered.iter().all(|message| message.kind != b'E'),
            "{answered:?}"
        );
    }
    Ok(())
}

/// How many bytes all rows had.
fn read_results(wire: &mut Wire, results: usize) -> anyhow::Result<usize> {
    let numbers = (0..ROWS_MAX * NUMBERS_A_ROW).map(|number| format!("{number:0>DIGITS$}"));
    let all = numbers.collect::<String>().into_bytes();
    let rows: Vec<_> = all.chunks(DIGITS * NUMBERS_A_ROW).collect();
    let mut bytes = 0;
    for result in 0..results {
        let count = rand::rng().random_range(ROWS_MIN..=ROWS_MAX);
        let pause = if result % 2 == 0 {
            BEFORE_READING
        } else {
            Duration::ZERO
        };
        bytes += read_result(wire, &rows[ROWS_MAX - count..], pause)
            .with_context(|| format!("result {result} of {count} rows"))?;
        for turn in 0..SMALL_TURNS {
            thread::sleep(PAUSE);
            let answer = wire.query_value(&format!("select {turn}"))?;
            ensure!(answer == turn.to_string(), "turn {turn}: {answer}");
        }
    }
    Ok(bytes)
}

fn read_result(wire: &mut Wire, rows: &[&[u8]], pause: Duration) -> anyhow::Result<usize> {
    let first = ROWS_MAX - rows.len();
    let sql = format!("select digits from piece where number >= {first} order by number");
    wire.send_query(&sql)?;
    thread::sleep(pause);
    let mut expected = rows.iter();
    let mut bytes = 0;
    loop {
        let message = wire.message()?;
        match message.kind {
            b'D' => {
                let row = *expected.next().context("a row too many")?;
                ensure!(message.columns()? == [row], "after {bytes} bytes");
                bytes += row.len();
            }
            b'T' | b'C' => {}
            b'Z' => break,
            _ => return Err(anyhow!("{message:?}")),
        }
    }
    ensure!(expected.len() == 0, "{} rows are missing", expected.len());
    Ok(bytes)
}
