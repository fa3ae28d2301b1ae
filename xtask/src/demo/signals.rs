//! Ctrl-C and SIGTERM as a request to end in order.

use anyhow::{Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How soon a signal is noticed.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Signals that are noted instead of ending this process.
///
/// They are handled and not blocked: a program that is started would inherit a block, and then
/// never hear a SIGTERM itself.
pub(super) struct Interrupts {
    noted: Arc<AtomicBool>,
}

impl Interrupts {
    /// From now on SIGINT and SIGTERM are only noted.
    pub(super) fn catch() -> Result<Self> {
        let noted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&noted))?;
        }
        Ok(Self { noted })
    }

    /// Waits for a signal. It is an error if `condition` ends first.
    pub(super) fn wait_while(&self, mut condition: impl FnMut() -> bool) -> Result<()> {
        while !self.noted.load(Ordering::Relaxed) {
            if !condition() {
                bail!("the router has ended by itself; its log says why");
            }
            thread::sleep(LOOK_PERIOD);
        }
        Ok(())
    }
}
