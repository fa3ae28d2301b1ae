//! When a tenant's server is ready, and what to say when it does not become so.

use tokio::time::Instant;
use tokio::time::sleep;

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
        let begin = Instant::now();
        let container = self.installation.name_of(tenant);
        loop {
            self.check_alive(tenant).await?;
            let test = Command::new("the readiness check", &["sh", "-c", READY_TEST]);
            match self.execute(tenant, test).await {
                Ok(_) => return Ok(()),
                // Not ready yet; or it stopped in between, which the next round finds out.
                Err(ContainerError::Execution { .. } | ContainerError::NotRunning { .. }) => {}
                Err(other) => return Err(other),
            }
            if begin.elapsed() > SERVER_READY_DEADLINE {
                let log = self.log_excerpt(tenant, LOG_EXCERPT_LINES).await;
                let waited = SERVER_READY_DEADLINE;
                return Err(ContainerError::NotReady {
                    container,
                    waited,
                    log,
                });
            }
            sleep(SERVER_READY_POLL_INTERVAL).await;
        }
    }

    async fn check_alive(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        let container = self.installation.name_of(tenant);
        let Some(inspection) = self.inspect(tenant).await? else {
            return Err(ContainerError::Missing { container });
        };
        if inspection.restart_count == 0 && inspection.is_alive {
            return Ok(());
        }
        let log = self.log_excerpt(tenant, LOG_EXCERPT_LINES).await;
        Err(ContainerError::Died {
            container,
            code: inspection.exit_code,
            log,
        })
    }
}
