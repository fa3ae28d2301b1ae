//! Reading the configuration again, while sessions go on.
//!
//! A file that cannot be used changes nothing. What only a restart can change stays as it is, and
//! is named until the file says it so again or the router was started anew.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::signal::unix::Signal;

use super::budget::budget;
use super::connection::FrontDoor;
use super::encryption::Encryption;
use super::live::Rules;
use crate::admin::request::KeyChange;
use crate::admin::request::ReloadReport;
use crate::config::configuration::Configuration;
use crate::config::source::Source;
use crate::config::source::SourceError;

/// Reads the configuration again when told to.
#[derive(Debug)]
pub(super) struct Reloader {
    door: Arc<FrontDoor>,
    source: Source,
    /// One at a time, and what the last one found.
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    file: Option<PathBuf>,
    report: ReloadReport,
}

/// What was read, and what that changes.
struct TakenOver {
    file: Option<PathBuf>,
    changed: Vec<KeyChange>,
    needs_restart: Vec<KeyChange>,
    cautions: Vec<String>,
}

/// Why what was read does not hold.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("`required` in `[tls]` needs a certificate, and there is none")]
    NoCertificate,
}

impl Reloader {
    /// `file` was read at the start.
    pub(super) fn new(door: Arc<FrontDoor>, source: Source, file: Option<PathBuf>) -> Self {
        let report = ReloadReport {
            file: name(file.as_ref()),
            cautions: door.live.rules().configuration.cautions(),
            ..ReloadReport::default()
        };
        Self {
            door,
            source,
            last: Mutex::new(Last { file, report }),
        }
    }

    /// Reads it again at every SIGHUP.
    pub(super) async fn at_signals(self: Arc<Self>, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            self.reload();
        }
    }

    /// What was found the last time.
    pub(super) fn last(&self) -> ReloadReport {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.report.clone()
    }

    /// Reads it again; what holds from now on.
    pub(super) fn reload(&self) -> ReloadReport {
        // Nothing under this lock can leave it half-changed.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let taken_over = self.take_over(last.file.is_some());
        last.report = match taken_over {
            Ok(TakenOver {
                file,
                changed,
                needs_restart,
                cautions,
            }) => {
                last.file = file;
                tracing::info!(changed = listed(&changed), "configuration read again");
                if !needs_restart.is_empty() {
                    let keys = listed(&needs_restart);
                    tracing::warn!(keys, "these count once the router is started anew");
                }
                ReloadReport {
                    file: name(last.file.as_ref()),
                    error: None,
                    changed,
                    needs_restart,
                    cautions,
                }
            }
            Err(error) => {
                tracing::error!(%error, "configuration not taken over: what held before holds");
                ReloadReport {
                    error: Some(error.to_string()),
                    changed: Vec::new(),
                    ..last.report.clone()
                }
            }
        };
        last.report.clone()
    }

    fn take_over(&self, had_file: bool) -> Result<TakenOver, ReloadError> {
        let (file, mut configuration) = self.source.read_again(had_file)?;
        let before = self.door.live.rules();
        let needs_restart = hold_back(&before.configuration, &mut configuration);
        let changed = differences(&before.configuration, &configuration);
        let encryption = self.encryption(&before.encryption, &configuration)?;
        // Nothing fails from here on.
        self.door.apply(&configuration);
        configuration.log_cautions();
        let cautions = configuration.cautions();
        self.door.live.set(Rules {
            configuration,
            encryption,
        });
        Ok(TakenOver {
            file,
            changed,
            needs_restart,
            cautions,
        })
    }

    fn encryption(
        &self,
        before: &Encryption,
        configuration: &Configuration,
    ) -> Result<Encryption, ReloadError> {
        let tls = &configuration.tls;
        let encryption = before.with(tls)?;
        let wants = tls.required && !before.required;
        if wants && !encryption.offers_anything(self.door.tls_wishes().passthrough) {
            return Err(ReloadError::NoCertificate);
        }
        Ok(encryption)
    }
}

impl FrontDoor {
    /// Takes over what is not looked up in the rules each time.
    fn apply(&self, configuration: &Configuration) {
        let limits = &configuration.limits;
        self.routes
            .set_defaults(configuration.tenant_defaults.clone());
        let budget = budget(configuration);
        self.sessions.set_max(budget.sessions);
        self.cancels.set_limits(limits);
        self.admission.set_limits(limits, budget);
    }
}

/// Leaves what only a restart can change as it is; which keys these are.
fn hold_back(running: &Configuration, wanted: &mut Configuration) -> Vec<KeyChange> {
    let mut changes = differences(running, wanted);
    changes.retain(|change| change.restart);
    for change in &changes {
        if let Some(section) = wanted.section_mut(&change.section) {
            // Its own text: it is understood, as `Configuration`'s tests show for every key.
            drop(section.assign(&change.name, &change.from));
        }
    }
    changes
}

/// Every key whose value is another.
fn differences(from: &Configuration, to: &Configuration) -> Vec<KeyChange> {
    let pairs = from.rows().into_iter().zip(to.rows());
    pairs
        .filter(|(from, to)| from.value != to.value)
        .map(|(from, to)| KeyChange {
            section: from.section.to_owned(),
            name: from.name.to_owned(),
            from: from.value,
            to: to.value,
            restart: from.restart,
        })
        .collect()
}

fn listed(changes: &[KeyChange]) -> String {
    let written: Vec<_> = changes.iter().map(ToString::to_string).collect();
    written.join(", ")
}

fn name(file: Option<&PathBuf>) -> Option<String> {
    Some(file?.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_held_back_and_named() {
        let running = Configuration::default();
        let mut wanted = running.clone();
        let mut assign = |section: &str, name, text| {
            let section = wanted.section_mut(section).unwrap();
            section.assign(name, text).unwrap().unwrap();
        };
        assign("serve", "listen", "127.0.0.1:1,127.0.0.1:2");
        assign("limits", "arrivals_max", "1");
        assign("limits", "sessions_max", "2");
        assign("tls", "required", "on");
        let held_back = hold_back(&running, &mut wanted);
        let names: Vec<_> = held_back.iter().map(|change| &*change.name).collect();
        assert_eq!(names, ["listen", "arrivals_max"]);
        assert_eq!(wanted.serve, running.serve);
        assert_eq!(wanted.limits.arrivals_max, running.limits.arrivals_max);
        let changed = listed(&differences(&running, &wanted));
        assert_eq!(
            changed,
            "[limits] sessions_max: 9000 → 2, [tls] required: off → on"
        );
    }
}
