//! A stand-in for Docker: one container that runs, and commands in it that end or never do.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bollard::API_DEFAULT_VERSION;
use bollard::Docker;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::config::directories::Directories;
use crate::config::limits::DOCKER_CALL_DEADLINE;
use crate::container::engine::Engine;
use crate::container::name::Installation;
use crate::tenant::id::TenantId;

/// What becomes of the commands in the container.
#[derive(Debug, Clone, Copy)]
pub(super) enum Commands {
    /// They end at once, with this exit code.
    End(i64),
    /// They print nothing and do not end.
    StandStill,
}

/// What it answers.
struct Script {
    commands: Commands,
    labels: Value,
    /// How often the container was started again, at each look; the last one stays.
    restarts: &'static [i64],
    looks: AtomicUsize,
}

/// Begins to answer on a socket in `root`, as long as the test runs.
pub(super) fn docker(
    root: &TempDir,
    tenant: &TenantId,
    commands: Commands,
    restarts: &'static [i64],
) -> Engine {
    let path = |name: &str| root.path().join(name);
    let directories = Directories::new(path("state"), path("run"));
    let installation = Installation::of(&directories).unwrap();
    let script = Arc::new(Script {
        commands,
        labels: json!(installation.labels(tenant)),
        restarts,
        looks: AtomicUsize::new(0),
    });
    let docker = answering(&path("docker.sock"), script);
    Engine {
        docker,
        installation,
        directories,
    }
}

fn answering(socket: &Path, script: Arc<Script>) -> Docker {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, script.clone()));
        }
    });
    let seconds = DOCKER_CALL_DEADLINE.as_secs();
    Docker::connect_with_unix(socket.to_str().unwrap(), seconds, API_DEFAULT_VERSION).unwrap()
}

async fn serve(stream: UnixStream, script: Arc<Script>) {
    let mut stream = BufReader::new(stream);
    while let Some(path) = asked(&mut stream).await {
        if path.ends_with("/start") {
            let upgrade = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            stream.write_all(upgrade.as_bytes()).await.unwrap();
            return match script.commands {
                Commands::End(_) => {}
                Commands::StandStill => std::future::pending().await,
            };
        }
        let body = match answer(&path, &script) {
            Some(answer) => answer.to_string(),
            None => String::new(),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    }
}

fn answer(path: &str, script: &Script) -> Option<Value> {
    match path {
        // What it logged: nothing.
        path if path.ends_with("/logs") => None,
        path if path.ends_with("/exec") => Some(json!({ "Id": "1" })),
        path if path.contains("/exec/") => {
            let code = match script.commands {
                Commands::End(code) => Some(code),
                Commands::StandStill => None,
            };
            Some(json!({ "Running": code.is_none(), "ExitCode": code }))
        }
        _ => {
            let look = script.looks.fetch_add(1, Ordering::Relaxed);
            let restarts = script.restarts.get(look).or(script.restarts.last());
            Some(json!({
                "RestartCount": restarts,
                "State": { "Status": "running", "Running": true, "ExitCode": 137 },
                "Config": { "Labels": script.labels },
            }))
        }
    }
}

/// The path of the next request, without its query, once its body has been read; none at the end.
async fn asked(stream: &mut BufReader<UnixStream>) -> Option<String> {
    let (mut path, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        let target = || Some(line.split(' ').nth(1)?.split('?').next()?.to_owned());
        path = path.or_else(target);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    path
}
