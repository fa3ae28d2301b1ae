//! When a tenant's server is ready, and what to say when it does not become so.

use std::time::Duration;

use tokio::time::sleep;
use tokio::time::timeout;

use crate::config::limits::LOG_EXCERPT_LINES;
use crate::config::limits::SERVER_READY_DEADLINE;
use crate::config::limits::SERVER_READY_POLL_INTERVAL;
use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::execute::Command;
use crate::tenant::id::TenantId;

/// True once the server takes connections for good. While the image's entrypoint makes the data it
/// runs another, temporary server on the same socket: then the first process is still the script.
///
/// No user is named: Docker's health check runs as root, and asking as a role that `peer` then
/// refuses would put three lines into the server's log every time.
pub(super) const READY_TEST: &str = "[ \"$(cat /proc/1/comm)\" = postgres ] && \
                                     exec pg_isready -q -h /var/run/postgresql -d postgres";

impl Engine {
    /// Waits until the tenant's server takes connections.
    ///
    /// # Errors
    /// The container stopped, or [`SERVER_READY_DEADLINE`] has passed.
    pub async fn wait_ready(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        self.wait_ready_within(tenant, SERVER_READY_DEADLINE).await
    }

    /// The deadline is for all of it: a tenant can hold up a single check as well.
    async fn wait_ready_within(
        &self,
        tenant: &TenantId,
        deadline: Duration,
    ) -> Result<(), ContainerError> {
        match timeout(deadline, self.become_ready(tenant)).await {
            Ok(done) => done,
            Err(_) => Err(ContainerError::NotReady {
                container: self.installation.name_of(tenant),
                waited: deadline,
                log: self.log_excerpt(tenant, LOG_EXCERPT_LINES).await,
            }),
        }
    }

    async fn become_ready(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        let mut restarts = None;
        loop {
            restarts = Some(self.check_alive(tenant, restarts).await?);
            let test = Command::new("the readiness check", &["sh", "-c", READY_TEST]);
            match self.execute(tenant, test).await {
                Ok(_) => return Ok(()),
                // Not ready yet; or it stopped in between, which the next round finds out.
                Err(
                    ContainerError::Execution { .. }
                    | ContainerError::NotRunning { .. }
                    | ContainerError::Unended { .. },
                ) => {}
                Err(other) => return Err(other),
            }
            sleep(SERVER_READY_POLL_INTERVAL).await;
        }
    }

    /// How often Docker has started it again by now, where that is not more often than `before`.
    /// What it did before this command began to wait says nothing about the server: the count goes
    /// back to 0 only when a stopped container is started.
    async fn check_alive(
        &self,
        tenant: &TenantId,
        before: Option<i64>,
    ) -> Result<i64, ContainerError> {
        let container = self.installation.name_of(tenant);
        let Some(inspection) = self.inspect(tenant).await? else {
            return Err(ContainerError::Missing { container });
        };
        let restarts = inspection.restart_count;
        if inspection.is_alive && restarts <= before.unwrap_or(restarts) {
            return Ok(restarts);
        }
        let log = self.log_excerpt(tenant, LOG_EXCERPT_LINES).await;
        Err(ContainerError::Died {
            container,
            code: inspection.exit_code,
            log,
        })
    }
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
