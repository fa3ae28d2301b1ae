//! The connection to the Docker engine of this machine.

use std::env;
use std::os::unix::ffi::OsStrExt;

use bollard::API_DEFAULT_VERSION;
use bollard::Docker;

use crate::config::directories::Directories;
use crate::config::limits::CONTAINER_CPU_MILLIS_DEFAULT;
use crate::config::limits::DOCKER_CALL_DEADLINE;
use crate::config::limits::FREE_DISK_BYTES_MIN;
use crate::container::error::ContainerError;
use crate::container::name::Installation;

/// Where Docker listens unless `DOCKER_HOST` says otherwise.
const SOCKET_DEFAULT: &str = "/var/run/docker.sock";

/// The Docker engine of this machine, and what in it is this installation's.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) docker: Docker,
    pub(super) installation: Installation,
    pub(super) directories: Directories,
}

/// What `doctor` tells about the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineReport {
    /// Version of the engine.
    pub version: String,
    /// Version of the API that is spoken with it.
    pub api_version: String,
    /// Storage driver.
    pub storage: String,
    /// Docker's data directory.
    pub root: String,
    /// Free bytes there, where it can be looked at.
    pub free_bytes: Option<u64>,
    /// Processors of the machine.
    pub processors: u32,
    /// What the engine itself complains of.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Connects and agrees on a version of the API.
    ///
    /// # Errors
    /// `DOCKER_HOST` is not a Unix socket, or nothing answers there.
    pub async fn connect(directories: &Directories) -> Result<Self, ContainerError> {
        let socket = socket()?;
        let unavailable = |source| ContainerError::Unavailable {
            socket: socket.clone(),
            source: Box::new(source),
        };
        let docker =
            Docker::connect_with_unix(&socket, DOCKER_CALL_DEADLINE.as_secs(), API_DEFAULT_VERSION)
                .map_err(unavailable)?;
        let docker = docker.negotiate_version().await.map_err(unavailable)?;
        let installation = Installation::of(directories)
            .map_err(ContainerError::directory("name", directories.state()))?;
        Ok(Self {
            docker,
            installation,
            directories: directories.clone(),
        })
    }

    /// The installation whose containers this engine runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// What the engine is and how it is.
    ///
    /// # Errors
    /// The call failed.
    pub async fn report(&self) -> Result<EngineReport, ContainerError> {
        let info = self
            .docker
            .info()
            .await
            .map_err(ContainerError::call("describe", "itself"))?;
        let root = info.docker_root_dir.unwrap_or_default();
        Ok(EngineReport {
            version: info.server_version.unwrap_or_default(),
            api_version: self.docker.client_version().to_string(),
            storage: info.driver.unwrap_or_default(),
            free_bytes: free_bytes(&root),
            root,
            processors: info
                .ncpu
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(1),
            warnings: info.warnings.unwrap_or_default(),
        })
    }
}

impl EngineReport {
    /// The processor limit of a new container, in thousandths of a core: Docker refuses more than
    /// the machine has.
    pub fn cpu_millis_default(&self) -> u32 {
        self.processors
            .saturating_mul(1_000)
            .min(CONTAINER_CPU_MILLIS_DEFAULT)
    }

    /// Refuses to begin what would fill the disk.
    ///
    /// # Errors
    /// Less than [`FREE_DISK_BYTES_MIN`] is free.
    pub fn check_free_space(&self) -> Result<(), ContainerError> {
        match self.free_bytes {
            Some(free) if free < FREE_DISK_BYTES_MIN => Err(ContainerError::NoSpace {
                path: self.root.clone(),
                free_mib: free / 1024 / 1024,
            }),
            _ => Ok(()),
        }
    }
}

fn socket() -> Result<String, ContainerError> {
    let Some(value) = env::var_os("DOCKER_HOST").filter(|value| !value.is_empty()) else {
        return Ok(SOCKET_DEFAULT.to_owned());
    };
    let text = value.to_string_lossy().into_owned();
    match value.as_bytes() {
        [b'/', ..] => Ok(text),
        _ => match text.strip_prefix("unix://") {
            Some(path) => Ok(path.to_owned()),
            None => Err(ContainerError::RemoteEngine { value: text }),
        },
    }
}

fn free_bytes(path: &str) -> Option<u64> {
    // The engine may run in another mount namespace: then nothing is known.
    let status = nix::sys::statvfs::statvfs(path).ok()?;
    status
        .blocks_available()
        .checked_mul(status.fragment_size())
}
