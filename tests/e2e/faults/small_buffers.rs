//! Send buffers as small as the kernel lets them be, on every socket of a session that is not the
//! server's: each write is taken in pieces, and refused again and again.

use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use pgs_tests::belongings::RouterEnds;
use pgs_tests::length::Length;
use pgs_tests::pattern::lpad;
use pgs_tests::stage::Stage;
use pgs_tests::wire::Wire;

use super::say;

/// The kernel makes 4608 of it: `SOCK_MIN_SNDBUF` of `include/net/sock.h`.
const SEND_BUFFER_BYTES: usize = 1;

pub(super) fn smallest(stage: &Stage) -> anyhow::Result<()> {
    let (turns, most) = Length::of_this_run()?.pick((12, 200_000), (100, 2_000_000));
    let router = stage.installation()?.second_router("cramped")?;
    let mut wire = Wire::connect_tcp(router.address())?;
    wire.log_in(stage.alpha()?)?;
    ensure!(wire.query_value("select 1")? == "1");
    let ends = RouterEnds::of(router.process_id(), wire.local_address()?)?;
    ensure!(ends.backends.len() == 1, "{ends:?}");
    for socket in ends.backends.iter().chain([&ends.client]) {
        let before = socket.send_buffer_size()?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let after = socket.send_buffer_size()?;
        ensure!(after < before && after < 8_192, "{before}, then {after}");
    }
    drop(ends);
    wire.set_send_buffer(SEND_BUFFER_BYTES)?;
    let begun = Instant::now();
    let mut bytes = 0;
    for turn in 1..=turns {
        // Some small, and up to the largest in both directions.
        let answer = most * turn / turns;
        let query = most - answer;
        let padding: String = (0..query / 10).map(|at| format!("{at:0>10}")).collect();
        let sql = format!("select md5('{padding}'), lpad('{turn}', {answer}, 'x'), md5('{turn}')");
        let answered = wire.query(&sql)?;
        let row = answered.iter().find(|message| message.kind == b'D');
        let row = row.with_context(|| format!("turn {turn}: {answered:?}"))?;
        let columns = row.columns()?;
        // By the server alone, over its own socket.
        let direct = direct(stage, &format!("select md5('{padding}'), md5('{turn}')"))?;
        ensure!(
            columns[0] == direct[0] && columns[2] == direct[1],
            "turn {turn}"
        );
        let expected = lpad(turn, answer, "x");
        ensure!(columns[1] == expected.as_bytes(), "turn {turn}");
        bytes += query + answer;
    }
    say(&format!(
        "smallest send buffers, {}: {bytes} bytes in {turns} turns, {:.1} s",
        stage.path(),
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn direct(stage: &Stage, sql: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let login = stage.alpha()?;
    let mut wire = Wire::connect_unix(&stage.installation()?.socket_of(&login.user))?;
    wire.log_in(login)?;
    let answered = wire.query(sql)?;
    let row = answered.iter().find(|message| message.kind == b'D');
    let columns = row.context("no row")?.columns()?;
    Ok(columns.into_iter().map(<[u8]>::to_vec).collect())
}
