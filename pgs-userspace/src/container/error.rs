//! What can go wrong with Docker, an image, a container or the server in it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error as DockerError;

use crate::config::limits::FREE_DISK_BYTES_MIN;
use crate::config::limits::SOCKET_PATH_BYTES_MAX;
use crate::error::Kind;
use crate::error::RUN_AS_ROOT;

/// What can go wrong with Docker, an image, a container or the server in it.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// `DOCKER_HOST` names something other than a Unix socket.
    #[error("DOCKER_HOST is `{value}`, but a tenant's socket must be on this machine")]
    RemoteEngine {
        /// Its value.
        value: String,
    },
    /// No engine answers.
    #[error("no Docker engine answers on `{socket}`: {}", reason(source))]
    Unavailable {
        /// The engine's socket.
        socket: String,
        /// Why.
        source: Box<DockerError>,
    },
    /// One call of the engine's API failed.
    #[error("Docker could not {call} `{on}`: {}", reason(source))]
    Call {
        /// What it was asked, as a verb.
        call: &'static str,
        /// On what.
        on: String,
        /// What it said.
        source: Box<DockerError>,
    },
    /// No image can have that name.
    #[error("`{image}` is no name of an image")]
    ImageName {
        /// What was given for one.
        image: String,
    },
    /// The image is not here and cannot be pulled.
    #[error("image `{image}` is not on this machine and cannot be pulled: {reason}")]
    ImageMissing {
        /// Its reference.
        image: String,
        /// What Docker said.
        reason: String,
    },
    /// The image's server would not keep its data in the tenant's volume.
    #[error("image `{image}` cannot hold a tenant: {reason}")]
    ImageUnfit {
        /// Its reference.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such Docker network.
    #[error("there is no Docker network `{network}`")]
    NetworkMissing {
        /// Its name.
        network: String,
    },
    /// The tenant's container is not there.
    #[error("the container `{container}` is not there")]
    Missing {
        /// Its name.
        container: String,
    },
    /// The tenant's container is there but does not run.
    #[error("the container `{container}` is not running")]
    NotRunning {
        /// Its name.
        container: String,
    },
    /// The tenant's container is there, and somebody has paused it.
    #[error("the container `{container}` is paused")]
    Paused {
        /// Its name.
        container: String,
    },
    /// The tenant's data is not there.
    #[error("the volume `{volume}` with the tenant's data is not there")]
    VolumeMissing {
        /// Its name.
        volume: String,
    },
    /// A container or volume of that name is not this installation's.
    #[error("`{name}` exists in Docker but carries none of this installation's labels")]
    Foreign {
        /// Its name.
        name: String,
    },
    /// The server did not answer in time.
    #[error(
        "the server in `{container}` does not answer after {} s{}",
        waited.as_secs(),
        excerpt(log)
    )]
    NotReady {
        /// Its name.
        container: String,
        /// How long it was given.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// The container stopped when it should have started.
    #[error(
        "the container `{container}` stopped with exit code {code}{}",
        excerpt(log)
    )]
    Died {
        /// Its name.
        container: String,
        /// Exit code of its first process.
        code: i64,
        /// The end of its log.
        log: String,
    },
    /// A command inside a container failed.
    #[error(
        "{task} failed in `{container}` with exit code {code}{}",
        excerpt(output)
    )]
    Execution {
        /// What was being done.
        task: String,
        /// Where.
        container: String,
        /// The command's exit code.
        code: i64,
        /// What it printed.
        output: String,
    },
    /// A command inside a container did not end in time.
    #[error("{task} did not end in `{container}` within {} s", waited.as_secs())]
    Unended {
        /// What was being done.
        task: String,
        /// Where.
        container: String,
        /// How long it was given.
        waited: Duration,
    },
    /// The tenant's socket directory cannot be made or removed.
    #[error("cannot {act} `{path}`: {source}")]
    Directory {
        /// What was tried, as a verb.
        act: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel takes no Unix socket path that long.
    #[error(
        "the socket's path `{path}` is {bytes} bytes long, a Unix socket's has at most \
         {SOCKET_PATH_BYTES_MAX}"
    )]
    SocketPathTooLong {
        /// The whole path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Too little room for one more cluster.
    #[error("only {free_mib} MiB are free in `{path}`, a tenant needs at least {} MiB",
        FREE_DISK_BYTES_MIN / 1024 / 1024)]
    NoSpace {
        /// Docker's data directory.
        path: String,
        /// What is left there.
        free_mib: u64,
    },
}

impl ContainerError {
    pub(super) fn call(
        call: &'static str,
        on: impl Into<String>,
    ) -> impl FnOnce(DockerError) -> Self {
        let on = on.into();
        move |source| Self::Call {
            call,
            on,
            source: Box::new(source),
        }
    }

    pub(super) fn directory(
        act: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Directory { act, path, source }
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        match self {
            Self::RemoteEngine { .. }
            | Self::NetworkMissing { .. }
            | Self::SocketPathTooLong { .. }
            | Self::ImageName { .. }
            | Self::ImageUnfit { .. } => Kind::Usage,
            Self::Unavailable { source, .. } if is_permission_denied(source) => {
                Kind::PermissionDenied
            }
            Self::Unavailable { .. } => Kind::DockerUnavailable,
            Self::Call { source, .. } if is_connection_failure(source) => Kind::DockerUnavailable,
            Self::NoSpace { .. } => Kind::NoSpace,
            _ if is_no_space(self.foreign_words().as_deref().unwrap_or_default()) => Kind::NoSpace,
            Self::ImageMissing { .. } => Kind::ImageMissing,
            Self::Missing { .. }
            | Self::NotRunning { .. }
            | Self::Paused { .. }
            | Self::Died { .. }
            | Self::Unended { .. }
            | Self::NotReady { .. } => Kind::Unhealthy,
            Self::VolumeMissing { .. } => Kind::NotFound,
            Self::Foreign { .. } => Kind::Exists,
            Self::Directory { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
                io::ErrorKind::StorageFull => Kind::NoSpace,
                _ => Kind::Internal,
            },
            // Docker read the request, and it is what was asked for that cannot be.
            Self::Call { source, .. } if is_bad_request(source) => Kind::Usage,
            Self::Call { .. } | Self::Execution { .. } => Kind::Internal,
        }
    }

    /// What Docker, or a program in a container, said about it.
    fn foreign_words(&self) -> Option<String> {
        match self {
            Self::Call { source, .. } => Some(reason(source)),
            Self::ImageMissing { reason: said, .. }
            | Self::Died { log: said, .. }
            | Self::NotReady { log: said, .. }
            | Self::Execution { output: said, .. } => Some(said.clone()),
            _ => None,
        }
    }

    /// The way out.
    pub fn hint(&self) -> Option<String> {
        let hint = match self.kind() {
            Kind::PermissionDenied => RUN_AS_ROOT,
            Kind::NoSpace => "make room: `docker system df` shows what takes it",
            Kind::DockerUnavailable => {
                "start it with `systemctl start docker`, or install it with your package manager"
            }
            Kind::ImageMissing => {
                "name an image that is here with `--image` or PGS_IMAGE (`docker images` lists \
                 them), or load one with `docker load`"
            }
            _ => return self.particular_hint(),
        };
        Some(hint.to_owned())
    }

    fn particular_hint(&self) -> Option<String> {
        Some(match self {
            Self::RemoteEngine { .. } => "unset DOCKER_HOST, or set it to `unix://…`".to_owned(),
            Self::ImageName { .. } => {
                "give `--image`, or PGS_IMAGE, a name such as `postgres:18` or \
                 `registry.example.com/team/postgres:18`"
                    .to_owned()
            }
            Self::ImageUnfit { .. } => "use `postgres:18`, or an image made from it".to_owned(),
            Self::NetworkMissing { network } => {
                format!("`docker network create {network}` makes it")
            }
            Self::SocketPathTooLong { .. } => {
                "choose a shorter `--state-dir`, or a shorter tenant id".to_owned()
            }
            Self::Missing { .. } | Self::NotRunning { .. } => {
                "`pgs start <tenant>` brings it back, with its data".to_owned()
            }
            Self::Paused { container } => format!("`docker unpause {container}` lets it go on"),
            Self::VolumeMissing { .. } => {
                "restore the volume from a backup, or give the tenant up \
                                           with `pgs remove <tenant>`"
                    .to_owned()
            }
            Self::Call { source, .. } if is_bad_request(source) => {
                "Docker names what it cannot do: see `--image`, `--cpus`, `--memory` and \
                 `--network` in `pgs create --help`"
                    .to_owned()
            }
            Self::Foreign { name } => format!("`docker inspect {name}` shows whose it is"),
            Self::Unended { .. } => "something in the container holds it up, and it may still be \
                                     carried out: `pgs restart <tenant>` ends both, then try \
                                     again; `pgs logs <tenant>` may show what it is"
                .to_owned(),
            Self::NotReady { container, .. } | Self::Died { container, .. } => {
                format!("`docker logs {container}` shows more, where the container is still there")
            }
            _ => return None,
        })
    }
}

/// Docker says it in words: there is no code for it in the API.
fn is_no_space(text: &str) -> bool {
    text.to_ascii_lowercase()
        .contains("no space left on device")
}

fn is_connection_failure(error: &DockerError) -> bool {
    use DockerError as E;
    matches!(
        error,
        E::HyperLegacyError { .. } | E::SocketNotFoundError(_) | E::IOError { .. }
    )
}

fn is_permission_denied(error: &DockerError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Docker's own words, without the library's around them.
pub(super) fn reason(error: &DockerError) -> String {
    match error {
        DockerError::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        DockerError::DockerStreamError { error } => error.trim().to_owned(),
        // The outer layers say that a request failed, the innermost one why.
        other => {
            let mut innermost: &dyn std::error::Error = other;
            while let Some(source) = innermost.source() {
                innermost = source;
            }
            innermost.to_string()
        }
    }
}

/// Whether Docker answered that the request makes no sense.
pub(super) fn is_bad_request(error: &DockerError) -> bool {
    matches!(
        error,
        DockerError::DockerResponseServerError {
            status_code: 400,
            ..
        }
    )
}

/// Whether Docker answered that there is no such thing.
pub(super) fn is_not_found(error: &DockerError) -> bool {
    matches!(
        error,
        DockerError::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

fn excerpt(text: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = text.lines().map(|line| format!("\n  | {line}")).collect();
    format!("; it said:{}", lines.concat())
}
