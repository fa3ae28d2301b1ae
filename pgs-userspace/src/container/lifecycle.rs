//! Making, starting, stopping, removing and looking at containers and volumes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bollard::errors::Error as DockerError;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bollard::query_parameters::InspectContainerOptions;
use bollard::query_parameters::InspectNetworkOptions;
use bollard::query_parameters::ListContainersOptionsBuilder;
use bollard::query_parameters::ListVolumesOptionsBuilder;
use bollard::query_parameters::StartContainerOptions;
use bollard::query_parameters::StopContainerOptions;

use crate::container::engine::Engine;
use crate::container::error::ContainerError;
use crate::container::error::is_not_found;
use crate::container::name::tenant_of;
use crate::container::server_tls::TlsEnd;
use crate::container::socket_directory;
use crate::container::specification;
use crate::container::state::ContainerState;
use crate::tenant::id::TenantId;
use crate::tenant::record::Blueprint;

/// What Docker knows of one tenant's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// In one word.
    pub state: ContainerState,
    /// Whether it runs, or is just being started.
    pub is_alive: bool,
    /// What ends the TLS of the tenant's clients, as the container was made.
    pub tls: TlsEnd,
    /// Whether an earlier version of pgs made it, which started such a server otherwise.
    pub is_outdated: bool,
    /// How often Docker started it again since it was made or started by hand.
    pub restart_count: i64,
    /// Exit code of its first process's last run.
    pub exit_code: i64,
    /// When it was started last, RFC 3339.
    pub started_at: Option<String>,
    /// What the last health check printed, where it failed.
    pub health_output: Option<String>,
}

impl Engine {
    /// Makes an empty volume for a tenant's data.
    ///
    /// # Errors
    /// The call failed.
    pub async fn create_volume(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        let name = self.installation.name_of(tenant);
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(self.installation.labels(tenant)),
            ..VolumeCreateRequest::default()
        };
        let created = self.docker.create_volume(request).await;
        created
            .map(drop)
            .map_err(ContainerError::call("create the volume", name))
    }

    /// Whether the tenant's volume is there.
    ///
    /// # Errors
    /// The call failed, or the volume of that name is not this installation's.
    pub async fn has_volume(&self, tenant: &TenantId) -> Result<bool, ContainerError> {
        let name = self.installation.name_of(tenant);
        match self.docker.inspect_volume(&name).await {
            Ok(volume) if self.installation.owns(&volume.labels, tenant) => Ok(true),
            Ok(_) => Err(ContainerError::Foreign { name }),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ContainerError::call("inspect the volume", name)(error)),
        }
    }

    /// Makes the tenant's socket directory and its container around the volume that is there.
    ///
    /// # Errors
    /// The volume or the network is not there, the name is taken, or a call failed.
    pub async fn create_container(
        &self,
        tenant: &TenantId,
        blueprint: &Blueprint,
        tls: TlsEnd,
    ) -> Result<(), ContainerError> {
        let name = self.installation.name_of(tenant);
        if !self.has_volume(tenant).await? {
            return Err(ContainerError::VolumeMissing { volume: name });
        }
        if let Some(network) = &blueprint.network {
            self.check_network(network).await?;
        }
        let sockets = socket_directory::prepare(&self.directories, tenant)?;
        let labels = self.installation.labels(tenant);
        let body = specification::container(blueprint, tls, &name, &sockets, labels);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created = self.docker.create_container(Some(options), body).await;
        created.map(drop).map_err(|error| match error {
            DockerError::DockerResponseServerError {
                status_code: 409, ..
            } => ContainerError::Foreign { name },
            // Volume and network were there just now.
            DockerError::DockerResponseServerError {
                status_code: 404,
                message,
            } => ContainerError::ImageMissing {
                image: blueprint.image.clone(),
                reason: message,
            },
            other => ContainerError::call("create the container", name)(other),
        })
    }

    /// Refuses a network that Docker does not know.
    ///
    /// # Errors
    /// It is not there, or the call failed.
    pub async fn check_network(&self, network: &str) -> Result<(), ContainerError> {
        match self
            .docker
            .inspect_network(network, None::<InspectNetworkOptions>)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Err(ContainerError::NetworkMissing {
                network: network.to_owned(),
            }),
            Err(error) => Err(ContainerError::call("inspect the network", network)(error)),
        }
    }

    /// Starts the tenant's container; nothing happens where it runs.
    ///
    /// # Errors
    /// It is not there, or the call failed.
    pub async fn start(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        // Docker mounts it by path: after somebody removed it, it has to be there again.
        socket_directory::prepare(&self.directories, tenant)?;
        let name = self.installation.name_of(tenant);
        let started = self
            .docker
            .start_container(&name, None::<StartContainerOptions>)
            .await;
        let failed = ContainerError::call("start the container", name.clone());
        match started {
            // Something else that it needs may be what is not there, such as its network.
            Err(error) if is_not_found(&error) && self.is_there(&name).await? => Err(failed(error)),
            started => unless_missing(started, "start the container", name),
        }
    }

    async fn is_there(&self, container: &str) -> Result<bool, ContainerError> {
        let options = None::<InspectContainerOptions>;
        match self.docker.inspect_container(container, options).await {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ContainerError::call("inspect the container", container)(
                error,
            )),
        }
    }

    /// Stops the tenant's container and waits for its last checkpoint.
    ///
    /// # Errors
    /// It is not there, or the call failed.
    pub async fn stop(&self, tenant: &TenantId) -> Result<(), ContainerError> {
        let name = self.installation.name_of(tenant);
        let stopped = self
            .docker
            .stop_container(&name, None::<StopContainerOptions>)
            .await;
        unless_missing(stopped, "stop the container", name)
    }

    /// How the tenant's container is; none where there is none.
    ///
    /// # Errors
    /// The container of that name is not this installation's, or the call failed.
    pub async fn inspect(&self, tenant: &TenantId) -> Result<Option<Inspection>, ContainerError> {
        let name = self.installation.name_of(tenant);
        let answer = self
            .docker
            .inspect_container(&name, None::<InspectContainerOptions>)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(ContainerError::call("inspect the container", name)(error)),
        };
        let config = answer.config.unwrap_or_default();
        let labels = config.labels.unwrap_or_default();
        if !self.installation.owns(&labels, tenant) {
            return Err(ContainerError::Foreign { name });
        }
        let state = answer.state.unwrap_or_default();
        let health = state.health.unwrap_or_default();
        let last_check = health.log.unwrap_or_default().pop();
        let command = config.cmd.unwrap_or_default();
        let tls = TlsEnd::of_command(&command);
        Ok(Some(Inspection {
            state: ContainerState::of_inspection(state.status, health.status),
            is_alive: state.running.unwrap_or(false) && !state.restarting.unwrap_or(false),
            tls,
            is_outdated: command != tls.command(),
            restart_count: answer.restart_count.unwrap_or(0),
            exit_code: state.exit_code.unwrap_or(0),
            started_at: state.started_at,
            health_output: last_check
                .filter(|check| check.exit_code != Some(0))
                .and_then(|check| check.output),
        }))
    }

    /// How every container of this installation is.
    ///
    /// # Errors
    /// The call failed.
    pub async fn states(&self) -> Result<BTreeMap<TenantId, ContainerState>, ContainerError> {
        let filter = self.installation.filter();
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter)
            .build();
        let listed = self.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(ContainerError::call("list the containers of", "pgs"))?;
        let state = |container: bollard::models::ContainerSummary| {
            let tenant = tenant_of(&container.labels.unwrap_or_default())?;
            let state = ContainerState::of_summary(container.state, container.status.as_deref());
            Some((tenant, state))
        };
        Ok(listed.into_iter().filter_map(state).collect())
    }

    /// The tenants whose volumes are there.
    ///
    /// # Errors
    /// The call failed.
    pub async fn volumes(&self) -> Result<BTreeSet<TenantId>, ContainerError> {
        let filter = self.installation.filter();
        let options = ListVolumesOptionsBuilder::default()
            .filters(&filter)
            .build();
        let listed = self.docker.list_volumes(Some(options)).await;
        let listed = listed.map_err(ContainerError::call("list the volumes of", "pgs"))?;
        let volumes = listed.volumes.unwrap_or_default();
        Ok(volumes
            .iter()
            .filter_map(|volume| tenant_of(&volume.labels))
            .collect())
    }
}

fn unless_missing(
    result: Result<(), DockerError>,
    call: &'static str,
    container: String,
) -> Result<(), ContainerError> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if is_not_found(&error) => Err(ContainerError::Missing { container }),
        Err(error) => Err(ContainerError::call(call, container)(error)),
    }
}
