//! The commands' side of the admin socket.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::config::limits::ADMIN_DEADLINE;
use crate::config::limits::ADMIN_RESPONSE_BYTES_MAX;
use crate::error::Kind;
use crate::error::RUN_AS_ROOT;

/// What can go wrong on the admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens there.
    #[error("`pgs serve` is not running: nobody listens on `{socket}`")]
    NotRunning {
        /// The admin socket.
        socket: PathBuf,
    },
    /// The socket is root's.
    #[error("`{socket}` is not yours to use")]
    PermissionDenied {
        /// The admin socket.
        socket: PathBuf,
    },
    /// The connection broke.
    #[error("cannot talk to `pgs serve` on `{socket}`: {source}")]
    Broken {
        /// The admin socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("`pgs serve` did not answer on `{socket}` within {} s", ADMIN_DEADLINE.as_secs())]
    TimedOut {
        /// The admin socket.
        socket: PathBuf,
    },
    /// The answer is longer than the bound, or cut off.
    #[error("the answer of `pgs serve` on `{socket}` has no end within {bytes} bytes")]
    Endless {
        /// The admin socket.
        socket: PathBuf,
        /// What was read of it.
        bytes: usize,
    },
    /// The answer cannot be understood.
    #[error("the answer of `pgs serve` on `{socket}` is not understood: {source}")]
    NotUnderstood {
        /// The admin socket.
        socket: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The router answered that it could not do it.
    #[error("`pgs serve` could not do it: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
}

impl AdminError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotRunning { .. } => Kind::ServeNotRunning,
            Self::PermissionDenied { .. } => Kind::PermissionDenied,
            _ => Kind::Internal,
        }
    }

    /// The way out.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning { .. } => {
                Some("start it with `pgs serve`; was it given another `--run-dir`?")
            }
            Self::PermissionDenied { .. } => Some(RUN_AS_ROOT),
            Self::NotUnderstood { .. } => {
                Some("`pgs serve` may be of another version: `pgs version`, then restart it")
            }
            _ => None,
        }
    }
}

/// Asks a running `pgs serve` one thing.
///
/// # Errors
/// Nobody listens, the exchange broke or took longer than [`ADMIN_DEADLINE`], or the router could
/// not do it.
pub async fn ask(socket: &Path, request: &Request) -> Result<Response, AdminError> {
    ask_within(socket, request, ADMIN_DEADLINE, ADMIN_RESPONSE_BYTES_MAX).await
}

async fn ask_within(
    socket: &Path,
    request: &Request,
    deadline: Duration,
    bytes_max: usize,
) -> Result<Response, AdminError> {
    let line = timeout(deadline, exchange(socket, request, bytes_max)).await;
    let line = line.unwrap_or_else(|_| {
        Err(AdminError::TimedOut {
            socket: socket.to_owned(),
        })
    })?;
    match serde_json::from_slice(&line) {
        Ok(Response::Failed { message }) => Err(AdminError::Refused { message }),
        Ok(response) => Ok(response),
        Err(source) => Err(AdminError::NotUnderstood {
            socket: socket.to_owned(),
            source,
        }),
    }
}

async fn exchange(
    socket: &Path,
    request: &Request,
    bytes_max: usize,
) -> Result<Vec<u8>, AdminError> {
    let broken = |source| AdminError::Broken {
        socket: socket.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AdminError::NotRunning {
                socket: socket.to_owned(),
            },
            io::ErrorKind::PermissionDenied => AdminError::PermissionDenied {
                socket: socket.to_owned(),
            },
            _ => broken(source),
        })?;
    let mut line = serde_json::to_vec(request).map_err(|error| broken(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broken)?;
    let mut answer = Vec::new();
    let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut reader = BufReader::new(stream).take(bound);
    reader
        .read_until(b'\n', &mut answer)
        .await
        .map_err(broken)?;
    if answer.last() == Some(&b'\n') {
        return Ok(answer);
    }
    Err(AdminError::Endless {
        socket: socket.to_owned(),
        bytes: answer.len(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A router that reads one line and writes `answer`.
    async fn against(answer: Vec<u8>, bytes_max: usize) -> Result<Response, AdminError> {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let router = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            // The other side hangs up early where the answer is too long.
            drop(stream.write_all(&answer).await);
            drop(stream.shutdown().await);
            line
        });
        let deadline = Duration::from_secs(5);
        let answer = ask_within(&socket, &Request::Status, deadline, bytes_max).await;
        assert_eq!(router.await.unwrap(), "{\"request\":\"status\"}\n");
        answer
    }

    #[tokio::test]
    async fn one_line_there_and_one_back() {
        let line = b"{\"response\":\"terminated\",\"sessions\":3}\n".to_vec();
        assert_eq!(
            against(line, 1000).await.unwrap(),
            Response::Terminated { sessions: 3 }
        );
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_with_its_message() {
        let line = b"{\"response\":\"failed\",\"message\":\"no\"}\n".to_vec();
        let error = against(line, 1000).await.unwrap_err();
        assert!(
            matches!(error, AdminError::Refused { ref message } if message == "no"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_answer_has_an_end_and_a_meaning() {
        let endless = against(vec![b'x'; 4096], 1000).await.unwrap_err();
        assert!(
            matches!(endless, AdminError::Endless { bytes: 1000, .. }),
            "{endless}"
        );
        let cut = against(b"{\"resp".to_vec(), 1000).await.unwrap_err();
        assert!(matches!(cut, AdminError::Endless { bytes: 6, .. }), "{cut}");
        let garbage = against(b"hello\n".to_vec(), 1000).await.unwrap_err();
        assert!(
            matches!(garbage, AdminError::NotUnderstood { .. }),
            "{garbage}"
        );
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_of_its_own_kind() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("admin.sock");
        let error = ask(&socket, &Request::Status).await.unwrap_err();
        assert_eq!(error.kind(), Kind::ServeNotRunning);
        drop(UnixListener::bind(&socket).unwrap());
        let error = ask(&socket, &Request::Status).await.unwrap_err();
        assert_eq!(
            error.kind(),
            Kind::ServeNotRunning,
            "a socket that nobody listens on any more"
        );
    }

    #[tokio::test]
    async fn silence_has_an_end() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("admin.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let deadline = Duration::from_millis(50);
        let error = ask_within(&socket, &Request::Status, deadline, 1000)
            .await
            .unwrap_err();
        assert!(matches!(error, AdminError::TimedOut { .. }), "{error}");
    }
}
