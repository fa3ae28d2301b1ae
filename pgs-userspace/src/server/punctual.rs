//! Waits to the moment.
//!
//! The runtime's own clock has ticks of a millisecond, counted from when a thread begins to wait:
//! how long something took before the wait then shows in when the wait ends. Where that must not
//! show, a thread of its own waits.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::sleep_until;

use crate::config::limits::PUNCTUAL_WAITS_MAX;
use crate::privileges;

/// Who waits, and until when.
type Wait = (Instant, oneshot::Sender<()>);

/// The other end of the thread; it ends with this.
#[derive(Debug)]
pub(super) struct Punctual {
    waits: SyncSender<Wait>,
}

impl Punctual {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no further thread.
    pub(super) fn start() -> io::Result<Self> {
        let (waits, coming) = sync_channel(PUNCTUAL_WAITS_MAX);
        thread::Builder::new()
            .name("punctual".to_owned())
            .spawn(move || {
                privileges::relinquish_or_log();
                keep_time(&coming);
            })?;
        Ok(Self { waits })
    }

    /// Waits until this moment; where too many wait already, by the runtime's clock.
    pub(super) async fn sleep_until(&self, at: tokio::time::Instant) {
        let (tell, told) = oneshot::channel();
        let waits = self.waits.try_send((at.into_std(), tell)).is_ok();
        if !waits || told.await.is_err() {
            sleep_until(at).await;
        }
    }
}

/// Tells everybody in time, until nobody can come any more.
fn keep_time(coming: &Receiver<Wait>) {
    // By when, and by who came first.
    let mut waiting = BTreeMap::<(Instant, u64), oneshot::Sender<()>>::new();
    for number in 0.. {
        while let Some(next) = waiting.first_entry()
            && next.key().0 <= Instant::now()
        {
            // Who waited may be gone.
            next.remove().send(()).ok();
        }
        let next = match waiting.first_key_value() {
            Some(((at, _), _)) => coming.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => coming.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            // Whoever is too many is let go, and waits by the runtime's clock.
            Ok(_) if waiting.len() >= PUNCTUAL_WAITS_MAX => {}
            Ok((at, tell)) => {
                waiting.insert((at, number), tell);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Each in its own time, whoever came first.
    #[tokio::test]
    async fn nobody_is_early_and_the_order_of_coming_does_not_matter() {
        let punctual = std::sync::Arc::new(Punctual::start().unwrap());
        let begun = tokio::time::Instant::now();
        let waits = [30, 10, 20, 0].map(|milliseconds| {
            let punctual = std::sync::Arc::clone(&punctual);
            let at = begun + Duration::from_millis(milliseconds);
            tokio::spawn(async move {
                punctual.sleep_until(at).await;
                (at, tokio::time::Instant::now())
            })
        });
        for wait in waits {
            let (at, woken) = wait.await.unwrap();
            assert!(woken >= at, "{:?} early", at - woken);
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
