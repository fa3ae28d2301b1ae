//! How a tenant's container is, in one word.

use bollard::models::ContainerStateStatusEnum;
use bollard::models::ContainerSummaryStateEnum;
use bollard::models::HealthStatusEnum;
use serde::Serialize;

/// How a tenant's container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Docker has no such container: somebody removed it by hand.
    Missing,
    /// It does not run.
    Stopped,
    /// It runs; the health check has not succeeded yet.
    Starting,
    /// It runs, and the server answers.
    Healthy,
    /// It runs, and the server does not answer.
    Unhealthy,
    /// It stopped by itself, and Docker starts it again and again.
    Restarting,
    /// Somebody paused it.
    Paused,
    /// Docker did not answer.
    Unknown,
}

impl ContainerState {
    /// The word for people and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Restarting => "restarting",
            Self::Paused => "paused",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a process runs in it.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Starting | Self::Healthy | Self::Unhealthy)
    }

    /// From a line of Docker's list: its health is only in the text, such as
    /// `Up 5 minutes (healthy)`.
    pub(super) fn of_summary(
        state: Option<ContainerSummaryStateEnum>,
        status: Option<&str>,
    ) -> Self {
        use ContainerSummaryStateEnum as S;
        match state {
            Some(S::RUNNING) => {
                let status = status.unwrap_or_default();
                if status.ends_with("(unhealthy)") {
                    Self::Unhealthy
                } else if status.ends_with("(health: starting)") {
                    Self::Starting
                } else {
                    Self::Healthy
                }
            }
            Some(S::RESTARTING) => Self::Restarting,
            Some(S::PAUSED) => Self::Paused,
            Some(S::CREATED | S::EXITED | S::DEAD | S::REMOVING | S::STOPPING) => Self::Stopped,
            Some(S::EMPTY) | None => Self::Unknown,
        }
    }

    /// From Docker's full answer about one container.
    pub(super) fn of_inspection(
        status: Option<ContainerStateStatusEnum>,
        health: Option<HealthStatusEnum>,
    ) -> Self {
        use ContainerStateStatusEnum as S;
        match (status, health) {
            (Some(S::RUNNING), Some(HealthStatusEnum::UNHEALTHY)) => Self::Unhealthy,
            (Some(S::RUNNING), Some(HealthStatusEnum::STARTING)) => Self::Starting,
            (Some(S::RUNNING), _) => Self::Healthy,
            (Some(S::RESTARTING), _) => Self::Restarting,
            (Some(S::PAUSED), _) => Self::Paused,
            (Some(S::CREATED | S::EXITED | S::DEAD | S::REMOVING | S::STOPPING), _) => {
                Self::Stopped
            }
            (Some(S::EMPTY) | None, _) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_read_from_the_text_of_the_list() {
        let running = Some(ContainerSummaryStateEnum::RUNNING);
        let of = |status| ContainerState::of_summary(running, Some(status));
        assert_eq!(of("Up 5 minutes (healthy)"), ContainerState::Healthy);
        assert_eq!(of("Up 2 hours (unhealthy)"), ContainerState::Unhealthy);
        assert_eq!(
            of("Up 1 second (health: starting)"),
            ContainerState::Starting
        );
        let exited = Some(ContainerSummaryStateEnum::EXITED);
        assert_eq!(
            ContainerState::of_summary(exited, Some("Exited (0) 2 seconds ago")),
            ContainerState::Stopped
        );
    }
}
