//! Takes a tenant's container and volume away, whatever else Docker is just doing with them.

use std::future::Future;

use bollard::errors::Error as DockerError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use bollard::query_parameters::RemoveVolumeOptions;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::config::limits::DOCKER_SETTLE_DEADLINE;
use crate::config::limits::DOCKER_SETTLE_POLL_INTERVAL;
use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::error::is_bad_request;
use crate::container::error::is_not_found;
use crate::tenant::id::TenantId;

impl Engine {
    /// Removes the tenant's container, running or not. No error where there is none.
    ///
    /// # Errors
    /// The container of that name is not this installation's, or the call failed.
    pub async fn remove_container(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        let name = self.installation.name_of(tenant);
        // By name, but never somebody else's.
        if self.inspect(tenant).await?.is_none() {
            return Ok(());
        }
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let removed =
            until_free(|| self.docker.remove_container(&name, Some(options.clone()))).await;
        removed.map_err(ContainerError::call("remove the container", name))
    }

    /// Removes the tenant's data. No error where there is none.
    ///
    /// # Errors
    /// The volume of that name is not this installation's, or the call failed.
    pub async fn remove_volume(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        let name = self.installation.name_of(tenant);
        if !self.has_volume(tenant).await? {
            return Ok(());
        }
        let removed = until_free(|| {
            self.docker
                .remove_volume(&name, None::<RemoveVolumeOptions>)
        })
        .await;
        removed.map_err(ContainerError::call("remove the volume", name))
    }

    /// Waits until Docker is no longer making the tenant's container for a command that has died.
    ///
    /// Docker goes on with a call whose caller has gone, and shows the container only when it is
    /// done; whoever looks before sees nothing to remove. But it takes the name first: only when
    /// another container can be made with that name is nobody making one.
    ///
    /// # Errors
    /// A call failed.
    pub async fn settle(&self, tenant: &TenantId, image: &str) -> Result<(), ContainerError> {
        let name = self.installation.name_of(tenant);
        let begin = Instant::now();
        while self.inspect(tenant).await?.is_none() {
            let body = ContainerCreateBody {
                image: Some(image.to_owned()),
                labels: Some(self.installation.labels(tenant)),
                network_disabled: Some(true),
                ..ContainerCreateBody::default()
            };
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            match self.docker.create_container(Some(options), body).await {
                Ok(_) => return self.remove_container(tenant).await,
                // Without its image no container is being made either, nor of what names none.
                Err(error) if is_not_found(&error) || is_bad_request(&error) => return Ok(()),
                Err(error) if !is_conflict(&error) || begin.elapsed() > DOCKER_SETTLE_DEADLINE => {
                    return Err(ContainerError::call("make sure of the name", name)(error));
                }
                Err(_) => sleep(DOCKER_SETTLE_POLL_INTERVAL).await,
            }
        }
        Ok(())
    }
}

/// Tries again while Docker says that the thing is in use: it may be removing it already, or the
/// container that uses it. That it is gone is no error.
async fn until_free<F>(mut attempt: impl FnMut() -> F) -> Result<(), DockerError>
where
    F: Future<Output = Result<(), DockerError>>,
{
    let begin = Instant::now();
    loop {
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) if is_conflict(&error) && begin.elapsed() < DOCKER_SETTLE_DEADLINE => {
                sleep(DOCKER_SETTLE_POLL_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_conflict(error: &DockerError) -> bool {
    matches!(
        error,
        DockerError::DockerResponseServerError {
            status_code: 409,
            ..
        }
    )
}
