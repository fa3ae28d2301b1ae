//! From accept to handover, as a number of allocations.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::TcpStream;

use anyhow::ensure;
use pgs_tests::router::DataPath;
use pgs_tests::stand_in::StandIn;

use crate::Scenario;
use crate::router::CountingRouter;

pub(crate) const SCENARIOS: &[(&str, Scenario)] =
    &[("a_login_allocates_little", a_login_allocates_little)];

/// Logins before the measured ones: what all share is there afterwards.
const FIRST: usize = 64;

/// Logins that are measured.
const LOGINS: usize = 256;

/// Allocations of one login, those of the session that it becomes included.
const TIMES_MAX: u64 = 120;

/// Bytes that one login asks for in all.
const BYTES_MAX: u64 = 48 * 1024;

/// Bytes that one login still has when it has become a session on which nothing happens.
const KEPT_BYTES_MAX: u64 = 6 * 1024;

fn a_login_allocates_little(path: DataPath) -> anyhow::Result<()> {
    let stand_in = StandIn::start()?;
    let mut router = CountingRouter::start(&stand_in, path)?;
    let _first = log_in(&stand_in, &router, FIRST)?;
    let before = router.allocated()?;
    let sessions = log_in(&stand_in, &router, LOGINS)?;
    let after = router.allocated()?;
    let each = |after: u64, before: u64| after.saturating_sub(before) / sessions.len() as u64;
    let times = each(after.times, before.times);
    let bytes = each(after.bytes, before.bytes);
    let kept = each(after.kept, before.kept);
    // Nothing can be done about a closed standard output.
    let _ignored = writeln!(
        std::io::stdout(),
        "a login, {path}: {times} allocations of {bytes} bytes in all; the session keeps {kept}"
    );
    ensure!(times <= TIMES_MAX, "{times} allocations");
    ensure!(bytes <= BYTES_MAX, "{bytes} bytes");
    ensure!(kept <= KEPT_BYTES_MAX, "{kept} bytes are kept");
    Ok(())
}

/// One after the other, from many addresses, as there are bounds for each.
fn log_in(
    stand_in: &StandIn,
    router: &CountingRouter,
    count: usize,
) -> anyhow::Result<Vec<TcpStream>> {
    let sources = (1..=250).cycle().map(|last| Ipv4Addr::new(127, 0, 9, last));
    let sources = sources.take(count);
    sources
        .map(|source| stand_in.log_in(router.address(), source))
        .collect()
}
