//! COPY, out of the server and into it: bulk one way at a time.

use super::figure::Metric;
use super::measure::Timing;
use super::options::Settings;
use super::plan::Cell;
use super::server::SINK;
use super::stage::Stage;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::Stdio;

/// Bytes of one row that COPY moves. Rows are wide and binary so that moving the bytes costs more
/// than making and parsing them, which is the same for all subjects.
const ROW_BYTES: u64 = 8_000;
/// Signature, flags and length of the extension of COPY's binary format; before each row the number
/// of columns, before each column its length; at the end -1 columns
/// (<https://www.postgresql.org/docs/18/sql-copy.html>).
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const ROW_HEADER_BYTES: u64 = 2 + 4;
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const GIGABYTE: f64 = 1e9;

/// What a COPY that took so long comes to.
pub(super) fn metrics(settings: &Settings, timing: &Timing) -> BTreeMap<Metric, f64> {
    // Exact: far below 2^52.
    let gigabytes = (rows(settings) * ROW_BYTES) as f64 / GIGABYTE;
    let cpu = timing.spent.busy_seconds / gigabytes;
    BTreeMap::from([
        (Metric::GigabytesPerSecond, gigabytes / timing.seconds),
        (Metric::CpuSecondsPerGigabyte, cpu),
    ])
}

fn rows(settings: &Settings) -> u64 {
    // Positive, and bounded by the command line.
    ((settings.copy_gigabytes * GIGABYTE) as u64).div_ceil(ROW_BYTES)
}

/// For a COPY at a tenth of a gigabyte a second.
fn seconds(settings: &Settings) -> u32 {
    (settings.copy_gigabytes * 10.0) as u32
}

pub(super) fn out(stage: &Stage, settings: &Settings, cell: Cell) -> Result<()> {
    let query = format!(
        "COPY (SELECT repeat('x', {}) FROM generate_series(1, {})) \
         TO STDOUT (FORMAT binary)",
        ROW_BYTES - ROW_HEADER_BYTES,
        rows(settings)
    );
    let mut psql = stage.client("psql", cell.place, cell.subject, seconds(settings))?;
    psql.args(["-Xqc", &query]);
    stage.run_quietly(psql.stdin(Stdio::null()).stdout(Stdio::null()))
}

/// The server reads and parses every row, and keeps none: what would be measured else is the disk.
pub(super) fn into(stage: &Stage, settings: &Settings, cell: Cell) -> Result<()> {
    let mut psql = stage.client("psql", cell.place, cell.subject, seconds(settings))?;
    psql.args([
        "-Xqc",
        &format!("COPY {SINK} FROM STDIN (FORMAT binary) WHERE false"),
    ]);
    let input = File::open(stage.ground.path("copy-in"))?;
    stage.run_quietly(psql.stdin(input).stdout(Stdio::null()))
}

/// Writes what COPY IN sends; it stays in the page cache.
pub(super) fn prepare_input(stage: &Stage, settings: &Settings) -> Result<()> {
    let path = stage.ground.path("copy-in");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let row = row()?;
    let written = || format!("write {}", path.display());
    file.write_all(HEADER).with_context(written)?;
    for _ in 0..rows(settings) {
        file.write_all(&row).with_context(written)?;
    }
    file.write_all(&TRAILER).with_context(written)?;
    file.into_inner()?.sync_all()?;
    Ok(())
}

/// One column of so many `x` that the row has its size.
fn row() -> Result<Vec<u8>> {
    let value_bytes = ROW_BYTES - ROW_HEADER_BYTES;
    let mut row = 1_i16.to_be_bytes().to_vec();
    row.extend(i32::try_from(value_bytes)?.to_be_bytes());
    row.resize(usize::try_from(ROW_BYTES)?, b'x');
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_size_and_says_so() {
        let row = row().unwrap();
        assert_eq!(row.len(), 8_000);
        assert_eq!(row[..8], [0, 1, 0, 0, 0x1f, 0x3a, b'x', b'x']);
        assert_eq!(HEADER.len(), 11 + 4 + 4);
        assert_eq!(TRAILER, [0xff, 0xff]);
    }
}
