//! Many bytes in both directions: every one of them arrives, once and in order.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use bytes::Bytes;
use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use pgs_tests::driver;
use pgs_tests::length::Length;
use pgs_tests::pattern;
use pgs_tests::stage::Stage;
use rand::Rng as _;
use tokio_postgres::Client;

use crate::Named;

pub(crate) const SCENARIOS: &[Named] = &[
    ("copy_in_and_out_with_hashes", copy_in_and_out),
    ("a_row_of_100_megabytes_both_ways", a_row_of_100_megabytes),
    ("half_close_while_a_result_streams", half_close),
    ("pipelined_queries_with_large_results", pipelined),
];

const LIMIT: Duration = Duration::from_secs(180);

/// What a binary COPY begins with: signature, flags, no header extension.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What it ends with: a tuple of -1 columns.
const COPY_TRAILER: &[u8] = b"\xff\xff";

/// How much is handed to the driver at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Around the sizes of buffers and pages, up to 64 MiB, and some by chance.
fn sizes() -> Vec<usize> {
    let mut sizes = vec![
        1,
        2,
        1023,
        8191,
        8192,
        65_535,
        65_536,
        65_537,
        1 << 20,
        64 << 20,
    ];
    let mut chance = rand::rng();
    sizes.extend((0..6).map(|_| chance.random_range(1..8 << 20)));
    sizes
}

fn copy_in_and_out(stage: &Stage) -> anyhow::Result<()> {
    let (address, login) = (stage.router()?.address(), stage.alpha()?);
    driver::block_on(LIMIT, async {
        let client = driver::connect(address, login).await?.client;
        client
            .batch_execute("create temp table piece (bytes bytea)")
            .await?;
        // Compressing noise is a waste of time.
        client
            .batch_execute("alter table piece alter bytes set storage external")
            .await?;
        for (seed, size) in (0_u64..).zip(sizes()) {
            let piece = pattern::bytes(seed, size);
            copy_in(&client, &piece)
                .await
                .with_context(|| format!("{size} bytes in"))?;
            let hash = pattern::sha256(&piece);
            let sql = "select encode(sha256(bytes), 'hex') from piece";
            let arrived: String = client.query_one(sql, &[]).await?.get(0);
            ensure!(arrived == hash, "{size} bytes arrived changed");
            let back = copy_out(&client)
                .await
                .with_context(|| format!("{size} bytes out"))?;
            ensure!(
                pattern::sha256(&back) == hash,
                "{size} bytes came back changed"
            );
            client.batch_execute("truncate piece").await?;
        }
        Ok(())
    })
}

async fn copy_in(client: &Client, piece: &[u8]) -> anyhow::Result<()> {
    let sink = client
        .copy_in("copy piece from stdin (format binary)")
        .await?;
    let mut sink = std::pin::pin!(sink);
    let length = i32::try_from(piece.len())?.to_be_bytes();
    let packed = [
        COPY_HEADER,
        &1_i16.to_be_bytes(),
        &length,
        piece,
        COPY_TRAILER,
    ]
    .concat();
    let packed = Bytes::from(packed);
    for start in (0..packed.len()).step_by(CHUNK_BYTES) {
        sink.send(packed.slice(start..packed.len().min(start + CHUNK_BYTES)))
            .await?;
    }
    ensure!(sink.finish().await? == 1, "not one row");
    Ok(())
}

async fn copy_out(client: &Client) -> anyhow::Result<Vec<u8>> {
    let mut stream = std::pin::pin!(
        client
            .copy_out("copy piece to stdout (format binary)")
            .await?
    );
    let mut packed = Vec::new();
    while let Some(chunk) = stream.next().await {
        packed.extend_from_slice(&chunk?);
    }
    let piece = packed
        .strip_prefix(COPY_HEADER)
        .and_then(|rest| rest.strip_suffix(COPY_TRAILER));
    let piece = piece.context("no frame of a binary COPY")?;
    // Column count and length come before the column.
    Ok(piece.get(6..).context("no column")?.to_vec())
}

fn a_row_of_100_megabytes(stage: &Stage) -> anyhow::Result<()> {
    const LENGTH: usize = 100_000_000;
    let mut wire = stage.log_in(stage.alpha()?)?;
    let answered = wire.query(&format!("select repeat('0123456789', {})", LENGTH / 10))?;
    let row = answered
        .iter()
        .find(|message| message.kind == b'D')
        .context("no row")?;
    let expected = pattern::sha256("0123456789".repeat(LENGTH / 10).as_bytes());
    ensure!(
        pattern::sha256(row.columns()?[0]) == expected,
        "the row came changed"
    );

    let (address, login) = (stage.router()?.address(), stage.alpha()?);
    driver::block_on(LIMIT, async {
        let client = driver::connect(address, login).await?.client;
        let sent = pattern::bytes(7, LENGTH);
        let sql = "select encode(sha256($1::bytea), 'hex'), $1::bytea";
        let row = client.query_one(sql, &[&sent]).await?;
        ensure!(
            row.get::<_, &str>(0) == pattern::sha256(&sent),
            "the parameter arrived changed"
        );
        ensure!(
            row.get::<_, &[u8]>(1) == sent,
            "the parameter came back changed"
        );
        Ok(())
    })
}

/// A client may say that it sends no more and still gets all that it asked for.
fn half_close(stage: &Stage) -> anyhow::Result<()> {
    const ROW_BYTES: usize = 100_000;
    let rows_in_all = Length::of_this_run()?.pick(2_000, 10_000);
    let mut wire = stage.log_in_settled(stage.alpha()?)?;
    wire.send_query(&format!(
        "select lpad(i::text, {ROW_BYTES}, 'x') from generate_series(1, {rows_in_all}) i"
    ))?;
    wire.shut_down_writing()?;
    let mut rows = 0;
    while let Some(message) = wire.message_or_end()? {
        match message.kind {
            b'D' => {
                rows += 1;
                let columns = message.columns()?;
                ensure!(columns[0].len() == ROW_BYTES, "row {rows} is short");
                ensure!(
                    columns[0].ends_with(format!("x{rows}").as_bytes()),
                    "row {rows}"
                );
            }
            b'E' => bail!("refused: {:?}", String::from_utf8_lossy(&message.body)),
            _ => {}
        }
    }
    ensure!(
        rows == rows_in_all,
        "{rows} of {rows_in_all} rows arrived before the end"
    );
    Ok(())
}

/// Both directions full at once: one thread writes queries while another reads results.
fn pipelined(stage: &Stage) -> anyhow::Result<()> {
    const QUERIES: usize = 60;
    const BYTES: usize = 1_000_000;
    let mut wire = stage.log_in(stage.alpha()?)?;
    let mut writer = wire.try_clone()?;
    let padding = "y".repeat(BYTES);
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            for i in 0..QUERIES {
                writer.send_query(&format!("select lpad('{i}', {BYTES}, 'x') /* {padding} */"))?;
            }
            anyhow::Ok(())
        });
        for i in 0..QUERIES {
            let answered = wire.until_ready()?;
            let row = answered.iter().find(|message| message.kind == b'D');
            let row = row.with_context(|| format!("no row for query {i}"))?;
            let column = row.columns()?[0];
            ensure!(column.len() == BYTES, "row {i} is short");
            ensure!(
                column.ends_with(format!("x{i}").as_bytes()),
                "not the row of query {i}"
            );
        }
        let written = writing.join();
        written.map_err(|_| anyhow::anyhow!("the writer panicked"))?
    })
}
